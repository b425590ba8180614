/**
 * The state file of a stack in Pulumi's file backend. A Pulumi that is killed while it writes leaves it, or the file of
 * its attributes beside it (which the backend does not write in one piece), empty or cut off, and every later run is
 * refused ("failed to load checkpoint: EOF"). The backend reads a file without attributes too, so broken ones are
 * removed. In place of a broken state the backend's version before it is put back. What was made since then is adopted
 * by the next `up`, as it carries its owner's marker.
 */
import { copyFileSync, existsSync, readFileSync, renameSync, rmSync } from "node:fs";
import path from "node:path";
import type { FileBackendStack } from "./stack-lock.js";

function isWhole(file: string): boolean {
  try {
    JSON.parse(readFileSync(file, "utf8"));
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT" || error instanceof SyntaxError) return false;
    throw error;
  }
}

/**
 * Repairs a broken state file. No Pulumi may be at work on the stack.
 *
 * @param say gets what was done
 */
export function repairCheckpoint({ backend, project, stack }: FileBackendStack, say: (line: string) => void): void {
  const file = path.join(backend, ".pulumi", "stacks", project, `${stack}.json`);
  for (const attributes of [`${file}.attrs`, `${file}.bak.attrs`]) {
    if (!existsSync(attributes) || isWhole(attributes)) continue;
    rmSync(attributes);
    say(`${attributes} was cut off by a killed Pulumi; removed, as the state is whole without it`);
  }
  if (!existsSync(file) || isWhole(file)) return;
  const broken = `${file}.broken`;
  copyFileSync(file, broken);
  if (isWhole(`${file}.bak`)) {
    copyFileSync(`${file}.bak`, `${file}.restored`);
    renameSync(`${file}.restored`, file);
    say(`the state of ${stack} was cut off by a killed Pulumi; the version before it is back (the other: ${broken})`);
  } else {
    rmSync(file);
    say(`the state of ${stack} was cut off by a killed Pulumi before anything was in it; it begins anew`);
  }
}
