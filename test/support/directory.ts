/** Folders that tests look into. */
import { readdirSync } from "node:fs";

/** Names of the entries of a folder, sorted; none when it does not exist. */
export function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder).sort();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw error;
  }
}
