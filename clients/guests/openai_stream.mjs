// The OpenAI SDK as its users use it: everything from the environment. Argument: stream | refused.
import OpenAI from "openai";

const client = new OpenAI({ maxRetries: 0 });
const ask = { model: "gpt-test", messages: [{ role: "user", content: "hello" }] };
if (process.argv[2] === "refused") {
  try {
    await client.chat.completions.create(ask);
  } catch (error) {
    const reason = error.headers?.get("x-deny-reason");
    console.log(JSON.stringify({ error: error.constructor.name, status: error.status, reason, text: error.message }));
  }
} else {
  const whole = await client.chat.completions.create(ask);
  const times = [];
  let text = "";
  for await (const chunk of await client.chat.completions.create({ ...ask, stream: true })) {
    const piece = chunk.choices[0]?.delta?.content;
    if (piece) {
      times.push(performance.now());
      text += piece;
    }
  }
  const spread = (times.at(-1) - times[0]) / 1000;
  console.log(JSON.stringify({ whole: whole.choices[0].message.content, text, spread }));
}
