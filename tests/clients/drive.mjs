// What the drivers in JavaScript share: make the calls that stdin names, print the answers.
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
