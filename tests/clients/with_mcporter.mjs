// mcporter's command line, which launches the server for each call.
import { spawnSync } from "node:child_process";
import { drive } from "./drive.mjs";

await drive(async (command, args) => {
  const server = ["--stdio", command, ...args.flatMap((each) => ["--stdio-arg", each])];
  const mcporter = (...options) => spawnSync("mcporter", options, { encoding: "utf8" });
  return {
    tools: JSON.parse(mcporter("list", ...server, "--json").stdout).tools.map((tool) => tool.name),
    call: (name, given) => {
      const options = [...server, name, "--args", JSON.stringify(given)];
      const { status, stdout, stderr } = mcporter("call", ...options);
      return { text: stdout || stderr, error: status !== 0 };
    },
    close: () => {},
  };
});
