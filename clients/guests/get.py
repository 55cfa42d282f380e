"""GET with a library's defaults, and the bearer token in the variable KEY if one is named.

Arguments: urllib | requests | httpx | aiohttp | aiohttp-env, URL [KEY].
"""

import asyncio
import os
import sys

library, url, *key = sys.argv[1:]
headers = {"Authorization": f"Bearer {os.environ[key[0]]}"} if key else {}


def with_urllib():
    from urllib.request import Request, urlopen

    return urlopen(Request(url, headers=headers), timeout=10).read().decode()


def with_requests():
    import requests

    answer = requests.get(url, headers=headers, timeout=10)
    answer.raise_for_status()
    return answer.text


def with_httpx():
    import httpx

    with httpx.Client(http2=True) as client:
        return client.get(url, headers=headers).raise_for_status().text


async def with_aiohttp(reads_environment):
    import aiohttp

    # `ssl.create_default_context`, which it uses, reads SSL_CERT_FILE; proxies it reads only when asked to.
    async with aiohttp.ClientSession(trust_env=reads_environment, raise_for_status=True) as session:
        async with session.get(url, headers=headers) as answer:
            return await answer.text()


WAYS = {
    "urllib": with_urllib,
    "requests": with_requests,
    "httpx": with_httpx,
    "aiohttp": lambda: asyncio.run(with_aiohttp(False)),
    "aiohttp-env": lambda: asyncio.run(with_aiohttp(True)),
}
print(WAYS[library]())
