/** Which machine this is. */
import { readFile } from "node:fs/promises";

/** The machine's stable id, from systemd's /etc/machine-id. */
export async function machineId(): Promise<string> {
  const id = (await readFile("/etc/machine-id", "utf8").catch(() => "")).trim();
  if (!/^[0-9a-f]{32}$/.test(id)) {
    throw new Error("/etc/machine-id holds no machine id, which ownership markers need; run systemd-machine-id-setup");
  }
  return id;
}
