// What the drivers in JavaScript share: make the calls that stdin names, print the answers.
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { text } from "node:stream/consumers";

// Run a client: `connect` launches the server and returns its tools, how to call one, and
// how to close it. A call returns {text, error}.
export async function drive(connect) {
  const { command, args, calls } = JSON.parse(await text(process.stdin));
  const { tools, call, close } = await connect(command, args);
  const answers = [];
  for (const [tool, given] of calls) {
    try {
      answers.push(await call(tool, given));
    } catch (failure) { // some clients throw what the server answers
      answers.push({ text: `${failure.name}: ${failure.message}`, error: true });
    }
  }
  console.log(JSON.stringify({ tools, answers }));
  await close();
}

// What a result of the protocol says.
export const answer = (result) => ({ text: result.content[0].text, error: !!result.isError });

// Launch an assistant that reads and writes JSON, a message a line. Return how to send what
// `make` returns for an id and to wait for its answer, and how to end it. It gets no settings
// and no keys of this environment, and its home is its folder.
export function converse(command, args) {
  const env = { PATH: process.env.PATH, HOME: process.cwd() };
  const child = spawn(command, args, { env, stdio: ["pipe", "pipe", "inherit"] });
  const waiting = [];
  createInterface({ input: child.stdout }).on("line", (line) => {
    const message = JSON.parse(line);
    if (!message.method) waiting[message.id ?? message.response?.request_id]?.(message);
  });
  const ask = (make) => new Promise((resolve) => {
    child.stdin.write(`${JSON.stringify(make(String(waiting.push(resolve) - 1)))}\n`);
  });
  return { ask, close: () => child.stdin.end() };
}
