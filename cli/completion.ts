/**
 * `palisade completion`, and the words that its scripts offer: they come from the definition of the command line
 * itself.
 */
import { RootCommand, script, ShellCompDirective, type Command as Completed } from "@bomb.sh/tab";
import type { Command, Option } from "commander";
import { completedPaths } from "./program.js";

/** Prints the script for a shell. */
export function printScript(shell: string): number {
  script(shell, "palisade", "palisade");
  return 0;
}

/** @param words what is typed behind `palisade`; the last word may be incomplete or empty. */
export function complete(program: Command, words: string[]): number {
  const paths = pathExpected(program, words);
  if (paths) {
    // The shell completes paths itself.
    const { ShellCompDirectiveFilterDirs, ShellCompDirectiveDefault } = ShellCompDirective;
    process.stdout.write(`:${paths === "folders" ? ShellCompDirectiveFilterDirs : ShellCompDirectiveDefault}\n`);
    return 0;
  }
  const root = new RootCommand();
  describe(root, program);
  const walk = (command: Command, prefix: string) => {
    for (const child of command.createHelp().visibleCommands(command)) {
      const name = prefix + child.name();
      describe(root.command(name, child.description()), child);
      walk(child, `${name} `);
    }
  };
  walk(program, "");
  root.parse([...words]);
  return 0;
}

function describe(completed: Completed, command: Command): void {
  for (const { short, long, description, required, argChoices } of command.createHelp().visibleOptions(command)) {
    if (!long) continue;
    const values = (offer: (value: string, description: string) => void) =>
      (argChoices ?? []).forEach((choice) => offer(choice, ""));
    const [name, letter] = [long.slice(2), short?.slice(1)];
    if (required) completed.option(name, description, values, letter);
    else if (letter) completed.option(name, description, letter);
    else completed.option(name, description);
  }
  for (const { argChoices, variadic, ...argument } of command.registeredArguments) {
    const values = (offer: (value: string, description: string) => void) =>
      (argChoices ?? []).forEach((choice) => offer(choice, ""));
    completed.argument((argument as unknown as { _name: string })._name, values, variadic);
  }
}

/** Whether the word that is being typed is the path of an option. */
function pathExpected(program: Command, words: string[]) {
  const [before, current = ""] = words.slice(-2).length === 2 ? words.slice(-2) : [undefined, words[0]];
  const flag = current.startsWith("--") && current.includes("=") ? current.slice(0, current.indexOf("=")) : before;
  let command: Command | undefined = program;
  for (const word of words) {
    const child: Command | undefined = command.commands.find((one) => one.name() === word);
    if (!child) break;
    command = child;
  }
  const option: Option | undefined = command.options.find(({ long }) => long === flag);
  return option && completedPaths.get(option);
}
