// One message of the official TypeScript SDK, whole and as a stream; prints both as JSON.
//
// Environment: SDK (path of its index.mjs), BASE_URL, REQUEST (the body as JSON).
const { default: Anthropic } = await import(process.env.SDK);

const client = new Anthropic({ baseURL: process.env.BASE_URL, apiKey: "made-up", maxRetries: 0 });
const request = JSON.parse(process.env.REQUEST);
const whole = await client.messages.create(request);
let texts = 0;
const stream = client.messages.stream(request);
stream.on("text", () => (texts += 1));
const streamed = await stream.finalMessage();
console.log(JSON.stringify({ whole, streamed, texts }));
