// The command line of the MCP Inspector, which launches the server for each call.
import { spawnSync } from "node:child_process";
import { answer, drive } from "./drive.mjs";

// An argument as a person writes it; "" must be quoted.
const written = ([name, value]) => ["--tool-arg", `${name}=${value === "" ? '""' : value}`];

await drive(async (command, args) => {
  const inspector = (...options) => {
    const line = ["--cli", command, ...args, "--method", ...options];
    return spawnSync("mcp-inspector", line, { encoding: "utf8" });
  };
  return {
    tools: JSON.parse(inspector("tools/list").stdout).tools.map((tool) => tool.name),
    call: (name, given) => {
      // As JSON (--tool-args-json), too. The machine would be shut down gracefully.
      if (given.force === "yes") return { text: "not sent: it would send false", error: true };
      const pairs = Object.entries(given).flatMap(written);
      const { status, stdout, stderr } = inspector("tools/call", "--tool-name", name, ...pairs);
      return { text: stdout ? answer(JSON.parse(stdout)).text : stderr, error: status !== 0 };
    },
    close: () => {},
  };
});
