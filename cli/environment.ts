/**
 * The environment in which plain `pulumi` works on this project as `make up` does: no account, no question, no
 * download.
 */
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { operatorHome, packageRoot } from "../shared/directories.js";
import { pulumiVariables } from "../shared/pulumi-environment.js";

const root = packageRoot();

/** Variables to set; `undefined` unsets one. */
export function pulumiEnvironment(environment: NodeJS.ProcessEnv = process.env): Record<string, string | undefined> {
  const home = operatorHome(environment);
  const stack = environment["PULUMI_STACK"] || environment["STACK"] || "local";
  const tools = [path.join(root, "build/bin"), path.join(root, "bin")].filter((folder) => existsSync(folder));
  const others = (environment["PATH"] ?? "").split(":").filter((folder) => folder !== "" && !tools.includes(folder));
  return {
    PATH: [...tools, ...others].join(":"),
    ...pulumiVariables({
      backend: `file://${path.join(home, "backend")}`,
      home: path.join(home, "pulumi"),
      passphraseFile: path.join(home, "passphrase"),
    }),
    PULUMI_STACK: stack,
    // `--config-file` of every command that has it: the file with the salt lies beside the passphrase, not in the
    // clone.
    PULUMI_OPTION_CONFIG_FILE: stackConfiguration(home, stack),
  };
}

/**
 * The file that `make up` keeps for a stack of this clone; undefined before the first `make up`, and outside a clone.
 */
function stackConfiguration(home: string, stack: string): string | undefined {
  const project = path.join(root, "Pulumi.yaml");
  const name = existsSync(project) ? /^name: *(\S+)/m.exec(readFileSync(project, "utf8"))?.[1] : undefined;
  const file = path.join(home, "stacks", `${name ?? ""}.${stack}.yaml`);
  return name !== undefined && existsSync(file) ? file : undefined;
}

/** The variables as lines that a POSIX shell evaluates. */
export function shellLines(variables: Record<string, string | undefined>): string {
  return Object.entries(variables)
    .map(([name, value]) =>
      value === undefined ? `unset ${name}\n` : `export ${name}='${value.replaceAll("'", `'\\''`)}'\n`,
    )
    .join("");
}
