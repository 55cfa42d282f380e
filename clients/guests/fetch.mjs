// Node's own fetch. Arguments: URL TOKEN.
const [url, token] = process.argv.slice(2);
const headers = token ? { authorization: `Bearer ${token}` } : {};
const posted = await fetch(`${url}/post`, { method: "POST", headers, body: "hello there" });
const answer = { status: posted.status, reason: posted.headers.get("x-deny-reason"), posted: await posted.json() };
if (posted.ok) {
  const streamed = await fetch(`${url}/ticks`, { headers });
  const times = [];
  let text = "";
  for await (const chunk of streamed.body.pipeThrough(new TextDecoderStream())) {
    times.push(performance.now());
    text += chunk;
  }
  answer.text = text;
  answer.spread = (times.at(-1) - times[0]) / 1000;
}
console.log(JSON.stringify(answer));
