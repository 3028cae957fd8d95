// Asks about a clip over HTTP, through videonsa-openai, and prints the answer as it is written. Needs Node 18 and nothing else.
//
//   videonsa-openai --server 127.0.0.1:8090 &
//   node chat.mjs clip.mp4 "What happens in this clip?"   # --base-url http://HOST:PORT/v1 --fps 1 --token T
//
// Exit code: 0 answered, 1 refused or failed (reason on stderr).
import { readFile } from "node:fs/promises";
import { parseArgs } from "node:util";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    "base-url": { type: "string", default: "http://127.0.0.1:8080/v1" },
    fps: { type: "string", default: "1" },
    token: { type: "string" },
  },
});
if (positionals.length !== 2) {
  console.error("usage: chat.mjs [flags] CLIP QUESTION");
  process.exit(2);
}

const headers = { "content-type": "application/json" };
if (values.token) headers.authorization = `Bearer ${values.token}`;

// An answer of the front, or an error with the reason that it gives.
async function request(path, body) {
  const init = body ? { method: "POST", headers, body: JSON.stringify(body) } : { headers };
  const response = await fetch(values["base-url"] + path, init);
  if (response.ok) return response;
  const { error } = await response.json();
  throw new Error(`${error.code}: ${error.message}`);
}

// The JSON of each server-sent event.
async function* events(response) {
  let text = "";
  for await (const piece of response.body.pipeThrough(new TextDecoderStream())) {
    text += piece;
    for (let end; (end = text.indexOf("\n\n")) >= 0; text = text.slice(end + 2)) {
      const data = text.slice(0, end).replace(/^data: /, "");
      if (data.startsWith("{")) yield JSON.parse(data);
    }
  }
}

try {
  const [clip, text] = positionals;
  const stored = /^(clips\/|https:\/\/)/.test(clip);
  const url = stored ? clip : `data:video/mp4;base64,${(await readFile(clip)).toString("base64")}`;
  const model = (await (await request("/models")).json()).data[0].id;
  const content = [
    { type: "video_url", video_url: { url, fps: Number(values.fps) } },
    { type: "text", text },
  ];
  const body = { model, stream: true, stream_options: { include_usage: true }, messages: [{ role: "user", content }] };
  for await (const event of events(await request("/chat/completions", body))) {
    if (event.error) throw new Error(`${event.error.code}: ${event.error.message}`);
    process.stdout.write(event.choices[0]?.delta.content ?? "");
    if (event.usage) console.error(`\n${event.usage.prompt_tokens} tokens in, ${event.usage.completion_tokens} out`);
  }
  process.stdout.write("\n");
} catch (error) {
  console.error(`failed: ${error.cause?.message ?? error.message}`);
  process.exitCode = 1;
}
