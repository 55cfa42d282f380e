// GET with a library's defaults, and the bearer token in the variable KEY if one is named.
// Arguments: fetch | https | axios, URL [KEY].
import https from "node:https";
import axios from "axios";

const [library, url, key] = process.argv.slice(2);
const headers = key ? { authorization: `Bearer ${process.env[key]}` } : {};

const ways = {
  async fetch() {
    const answer = await fetch(url, { headers });
    if (!answer.ok) throw new Error(`${answer.status} ${answer.headers.get("x-deny-reason")}`);
    return answer.text();
  },
  https: () =>
    new Promise((resolve, reject) => {
      const request = https.get(url, { headers }, (answer) => {
        let text = "";
        answer.setEncoding("utf8").on("data", (part) => (text += part));
        answer.on("end", () => (answer.statusCode < 400 ? resolve(text) : reject(new Error(answer.statusCode))));
      });
      request.on("error", reject);
    }),
  axios: async () => (await axios.get(url, { headers, responseType: "text", transformResponse: (text) => text })).data,
};
try {
  process.stdout.write(await ways[library]());
} catch (error) {
  console.error(error.cause ?? error.message ?? error, error.code ?? "");
  process.exit(1);
}
