// One conversation of the official TypeScript SDK's tool runner; prints the final text.
//
// Environment: SDK (path of its index.mjs), BASE_URL, KEY, MODEL, STREAM ("1" or ""), PROMPT.
const { default: Anthropic } = await import(process.env.SDK);

const client = new Anthropic({
  baseURL: process.env.BASE_URL,
  apiKey: null,
  authToken: process.env.KEY,
  maxRetries: 0,
});
const add = {
  type: "custom",
  name: "add",
  description: "Add two numbers.",
  input_schema: {
    type: "object",
    properties: { a: { type: "number" }, b: { type: "number" } },
    required: ["a", "b"],
  },
  parse: (input) => input,
  run: ({ a, b }) => String(a + b),
};
const runner = client.beta.messages.toolRunner({
  model: process.env.MODEL,
  max_tokens: 1000,
  messages: [{ role: "user", content: process.env.PROMPT }],
  tools: [add],
  stream: process.env.STREAM === "1",
});
for await (const each of runner) {
  if (process.env.STREAM === "1") {
    for await (const _ of each);
  }
}
const message = await runner.done();
console.log(message.content.map((block) => block.text ?? "").join(""));
