/**
 * Variables of a remote command. An SSH server accepts those that its `AcceptEnv` names, by default none, and ignores
 * the others silently. So a probe reads which variables arrive, and the others are passed on standard input: on the
 * command line, every user of the other machine could read them.
 */
import path from "node:path";
import type { Operation } from "../provider/backends/index.js";
import { PropertyError } from "../provider/backends/errors.js";
import type { Variables } from "./environment.js";

/** A command as it is sent to the server. */
export interface Handover {
  script: string;
  /** Variables that are requested from the server. */
  env: Variables;
  stdin: string;
}

/** Every server accepts packets of this many bytes (RFC 4253, section 6.1), with room for the rest of the request. */
const longestRequest = 30_000;

/** Shells that can run the lines that read variables. */
const posixShells = new Set(["sh", "ash", "bash", "dash", "ksh", "zsh"]);

/**
 * @param probe runs a script with variables requested from the server, and returns its output; undefined when it failed
 * @throws PropertyError for variables of the program that cannot be passed; output of the last run is left out instead,
 * and logged
 */
export async function handOver(
  op: Operation,
  host: string,
  run: { command: string; given: Variables; previous: Variables; stdin: string },
  probe: (script: string, env: Variables) => Promise<string | undefined>,
): Promise<Handover> {
  const variables = { ...run.given, ...run.previous };
  if (Object.keys(variables).length === 0) return { script: run.command, env: {}, stdin: run.stdin };
  const asked = pick(variables, (name) => Buffer.byteLength(`${name}${variables[name]}`) <= longestRequest);
  const arrived = await probe("env", asked);
  const lines = `\n${arrived ?? ""}\n`;
  const env = pick(asked, (name) => lines.includes(`\n${name}=${asked[name]}\n`));
  let lacking = pick(variables, (name) => !Object.hasOwn(env, name));
  const shell = path.posix.basename(/^SHELL=(.*)$/m.exec(arrived ?? "")?.[1]?.trim() ?? "");
  const impossible = (name: string): string | undefined => {
    if (!posixShells.has(shell))
      return `the login shell there${shell && `, ${shell},`} is none that can read it from standard input`;
    return /^[A-Za-z_]\w*$/.test(name) ? undefined : "no shell takes a variable of that name";
  };
  const failures = Object.keys(lacking).flatMap((name) => {
    const reason = impossible(name);
    if (!reason) return [];
    if (!Object.hasOwn(run.previous, name)) {
      const advice = `let the SSH server of ${host} accept it (AcceptEnv in sshd_config), or set it in the command itself`;
      return [
        { property: `environment[${JSON.stringify(name)}]`, reason: `does not arrive, and ${reason}; ${advice}` },
      ];
    }
    op.log("info", `${name} is not set: the SSH server of ${host} does not accept it, and ${reason}`);
    lacking = pick(lacking, (other) => other !== name);
    return [];
  });
  if (failures.length > 0) throw new PropertyError(failures);
  const names = Object.keys(lacking);
  if (names.length === 0) return { script: run.command, env, stdin: run.stdin };
  return {
    script: `${names.map(reading).join(" ")} unset palisade_value\n${run.command}`,
    env,
    stdin: `${names.map((name) => `${escaped(lacking[name]!)}\n`).join("")}${run.stdin}`,
  };
}

const pick = (variables: Variables, chosen: (name: string) => boolean): Variables =>
  Object.fromEntries(Object.entries(variables).filter(([name]) => chosen(name)));

/** One line of standard input, which `printf %b` turns into the value. */
const escaped = (value: string): string => value.replaceAll("\\", "\\\\").replaceAll("\n", "\\n");

/**
 * `read` takes no more than its line. The `x` keeps line ends, which a substitution would take from the value's end.
 */
const reading = (name: string): string =>
  `IFS= read -r palisade_value; palisade_value=$(printf '%bx' "$palisade_value"); ${name}=\${palisade_value%x}; export ${name};`;
