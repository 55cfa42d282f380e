// The undici package's fetch with its own reading of the proxy variables. Arguments: URL TOKEN.
import { EnvHttpProxyAgent, fetch } from "undici";

const [url, token] = process.argv.slice(2);
const headers = { authorization: `Bearer ${token}` };
const answer = await fetch(url, { headers, dispatcher: new EnvHttpProxyAgent() });
console.log(JSON.stringify({ status: answer.status, body: await answer.json() }));
process.exit(0);
