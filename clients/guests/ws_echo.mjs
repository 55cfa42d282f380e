// The `ws` package; it has no proxy support of its own, so the program hands it an agent. Arguments: URL TOKEN.
import { HttpsProxyAgent } from "https-proxy-agent";
import WebSocket from "ws";

const [url, token] = process.argv.slice(2);
const agent = new HttpsProxyAgent(process.env.HTTPS_PROXY);
const socket = new WebSocket(url, { agent, headers: { authorization: `Bearer ${token}` } });
socket.on("open", () => socket.send("hello"));
socket.on("message", (data) => {
  console.log(JSON.stringify({ text: data.toString() }));
  socket.close();
});
