/** What the script does is seen in real shells; how a server refuses variables, in remote.test.ts. */
import { execFileSync, spawnSync } from "node:child_process";
import { describe, expect, it } from "vitest";
import type { Operation } from "../provider/backends/index.js";
import { handOver } from "./remote-environment.js";

const lines: string[] = [];
const op = { log: (_severity: string, message: string) => lines.push(message) } as unknown as Operation;

/** A server that takes some variables only, and has a login shell. */
const server =
  (accepted: RegExp, shell = "/bin/bash") =>
  async (_script: string, env: Record<string, string>) =>
    [
      `SHELL=${shell}`,
      ...Object.entries(env).flatMap(([name, value]) => (accepted.test(name) ? [`${name}=${value}`] : [])),
    ].join("\n");

const shells = ["sh", "bash", "dash", "zsh", "ksh"].filter((shell) => spawnSync(shell, ["-c", "true"]).status === 0);
const awkward = {
  PLAIN: "word",
  EMPTY: "",
  BLANKS: "  two  words  ",
  QUOTES: `'"\`$HOME $(date) \\ \\n \\0101 \\c %s %%`,
  LINES: "a\n\nb\n\n",
  LETTERS: "pässwörd 😀",
  LARGE: "x".repeat(100_000),
};

describe.each(shells)("in %s", (shell) => {
  it("variables that the server refuses arrive as they are, and the command's input after them", async () => {
    const command = 'printf "%s\\0" "$PLAIN" "$EMPTY" "$BLANKS" "$QUOTES" "$LINES" "$LETTERS" "$LARGE"; cat; exit 7';
    const sent = await handOver(op, "h", { command, given: awkward, previous: {}, stdin: "in\nput" }, server(/^$/));
    expect(sent.env).toEqual({});
    for (const value of ["word", "two  words", "pässwörd"]) expect(sent.script).not.toContain(value);
    const { stdout, status, stderr } = spawnSync(shell, ["-c", sent.script], { input: sent.stdin, encoding: "utf8" });
    expect(stderr).toBe("");
    expect(stdout.split("\0")).toEqual([...Object.values(awkward), "in\nput"]);
    expect(status).toBe(7);
  });
});

it("leaves to the server what it accepts", async () => {
  const run = {
    command: "true",
    given: { A: "1", LC_B: "2\n3" },
    previous: { PULUMI_COMMAND_STDOUT: "x" },
    stdin: "in",
  };
  expect(await handOver(op, "h", run, server(/./))).toEqual({
    script: "true",
    env: { ...run.given, ...run.previous },
    stdin: "in",
  });
  const some = await handOver(op, "h", run, server(/^LC_/));
  expect(some.env).toEqual({ LC_B: "2\n3" });
  expect(
    execFileSync("sh", ["-c", `${some.script}; echo "$A $PULUMI_COMMAND_STDOUT"; cat`], {
      input: some.stdin,
    }).toString(),
  ).toBe("1 x\nin");
});

it("asks nothing where there are no variables", async () => {
  const never = () => Promise.reject(new Error("asked"));
  expect(await handOver(op, "h", { command: "true", given: {}, previous: {}, stdin: "in" }, never)).toEqual({
    script: "true",
    env: {},
    stdin: "in",
  });
});

it.each<[string, (script: string, env: Record<string, string>) => Promise<string | undefined>, string]>([
  ["a shell that cannot read them", server(/^$/, "/usr/bin/fish"), "the login shell there, fish, is none"],
  ["no answer", () => Promise.resolve(undefined), "the login shell there is none"],
])("refuses what cannot be handed over, and leaves out the last output: %s", async (_name, probe, reason) => {
  const run = { command: "true", given: { A: "canary" }, previous: {}, stdin: "" };
  const failed = handOver(op, "192.0.2.1", run, probe);
  await expect(failed).rejects.toThrow(`environment["A"]: does not arrive, and ${reason}`);
  await expect(failed).rejects.toThrow("AcceptEnv");
  await expect(failed).rejects.not.toThrow("canary");
  lines.length = 0;
  const previous = { PULUMI_COMMAND_STDOUT: "canary" };
  expect(await handOver(op, "h", { ...run, given: {}, previous }, probe)).toMatchObject({ script: "true", stdin: "" });
  expect(lines).toEqual([expect.stringContaining(reason)]);
});

it("refuses a name that no shell takes", async () => {
  const run = { command: "true", given: { "A.B": "x" }, previous: {}, stdin: "" };
  await expect(handOver(op, "h", run, server(/^$/))).rejects.toThrow("no shell takes a variable of that name");
});
