// Runs a check on those of the files named on standard input that have not passed it yet with the same content.
// Contents that passed are remembered outside the clone, so that a fresh clone does not check them again. What else
// decides the result is named by --key, files or folders: when any of it changes, everything is checked again.
// Usage: git ls-files ... | unchecked.mjs --name NAME [--key PATH]... -- COMMAND [ARGUMENT...]; the files are appended
// to the command. Prints how many were checked to file descriptor 3.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import path from "node:path";
import { parseArgs } from "node:util";

const { values, positionals } = parseArgs({
  options: { name: { type: "string" }, key: { type: "string", multiple: true, default: [] } },
  allowPositionals: true,
});
const command = positionals;

/** All files below a path, in a stable order. */
function filesBelow(name) {
  if (!statSync(name).isDirectory()) return [name];
  return readdirSync(name, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => path.join(entry.parentPath ?? entry.path, entry.name))
    .sort();
}

const key = createHash("sha256").update(JSON.stringify([process.version, command.slice(1)]));
for (const name of values.key) {
  // Other files see only the declarations of compiled code.
  const files = filesBelow(name).filter((file) => !file.startsWith("dist/") || file.endsWith(".d.ts"));
  for (const file of files) key.update(`${file}\0`).update(readFileSync(file));
}
const prefix = key.digest("hex");

const folder = path.join(process.env.PALISADE_CACHE, "checked", values.name);
mkdirSync(folder, { recursive: true });
const mark = (file) =>
  path.join(folder, createHash("sha256").update(`${prefix}\0${file}\0`).update(readFileSync(file)).digest("hex"));

const files = readFileSync(0, "utf8")
  .split("\n")
  // A link is a second name; the file is checked by its own name.
  .filter((file) => file !== "" && existsSync(file) && !lstatSync(file).isSymbolicLink());
const unchecked = files
  .map((file) => ({ file, mark: mark(file) }))
  .filter((each) => {
    if (!existsSync(each.mark)) return true;
    // Marks that nothing has asked for in a while may be removed by their age.
    utimesSync(each.mark, new Date(), new Date());
    return false;
  });
writeSync(3, `${unchecked.length} of ${files.length} files are new or changed`);
if (unchecked.length > 0) {
  const [program, ...args] = command;
  const { status } = spawnSync(program, [...args, ...unchecked.map(({ file }) => file)], { stdio: "inherit" });
  if (status !== 0) process.exit(status ?? 1);
  for (const each of unchecked) writeFileSync(each.mark, "");
}
