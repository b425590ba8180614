import { expect, it } from "vitest";
import type { PublishedPort } from "../../../backends/index.js";
import { commandLine, macAddress, type MachineDefinition } from "./command-line.js";
import { changeForwards, listForwards } from "./forwards.js";
import type { Qmp } from "./qmp.js";

const port = (number: number, hostPort: number, protocol: "TCP" | "UDP" = "TCP"): PublishedPort => ({
  port: number,
  protocol,
  hostAddress: "127.0.0.1",
  hostPort,
});

const machine: MachineDefinition = {
  id: "vm-0123456789ab",
  generationId: "324e6eaf-d1d1-4bf6-bf41-b9bb6c91fb87",
  accelerator: "tcg",
  cpus: 2,
  memoryMiB: 2048,
  firmware: "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd",
  imageDisk: "/state/a,b/disk.raw",
  stateDisk: "/state/disk.qcow2",
  forwards: [port(8443, 20001), port(53, 20002, "UDP")],
};

it("shares the image read-only, forwards ports, and doubles commas in paths", () => {
  const text = commandLine(machine).join(" ");
  expect(text).toContain("node-name=image,driver=raw,read-only=on,file.driver=file,file.filename=/state/a,,b/disk.raw");
  expect(text).toContain("serial=palisade-state");
  expect(text).toContain("hostfwd=tcp:127.0.0.1:20001-:8443,hostfwd=udp:127.0.0.1:20002-:53");
  expect(text).toContain("-accel tcg,thread=single");
  expect(commandLine({ ...machine, accelerator: "kvm" }).join(" ")).toContain("-accel kvm");
  expect(macAddress(machine.id)).toMatch(/^52:54:00(:[0-9a-f]{2}){3}$/);
  expect(macAddress(machine.id)).not.toBe(macAddress("vm-0123456789ac"));
});

it("gives a clone the devices of its template, memory that it cannot change, and no right to start programs", () => {
  const words = (use: "keep" | "clone") => commandLine({ ...machine, snapshot: { file: "/cache/a,b", use } });
  const devices = (args: string[]) => args.filter((_word, index) => args[index - 1] === "-device");
  expect(devices(words("clone"))).toEqual(devices(words("keep")));
  expect(devices(words("clone")).at(-1)).toContain("name=palisade.template");
  expect(devices(commandLine(machine)).join(" ")).not.toContain("palisade.template");
  expect(words("keep").join(" ")).toContain("mem-path=/cache/a,,b,share=on");
  expect(words("clone").join(" ")).toContain("mem-path=/cache/a,,b,share=off");
  expect(words("clone").join(" ")).toContain("-incoming defer");
  expect(words("keep").join(" ")).not.toContain("-incoming");
  for (const args of [words("clone"), commandLine(machine)]) expect(args.join(" ")).toContain("spawn=deny");
});

const table = [
  "Hub -1 (net0):",
  "  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ",
  "  TCP[HOST_FORWARD]  15       127.0.0.1 22255       10.0.2.15    80     0     0",
  "  UDP[HOST_FORWARD]  16         0.0.0.0 22256       10.0.2.15    53     0     0",
  "  TCP[ESTABLISHED]   17       127.0.0.1 22255       10.0.2.15    80     0     0",
].join("\r\n");

function monitor(refusal = "") {
  const said: string[] = [];
  const human = (line: string) => {
    if (line === "info usernet") return Promise.resolve(table);
    said.push(line);
    return Promise.resolve(line.startsWith("hostfwd_add") ? refusal : "");
  };
  return { said, qmp: { human } as unknown as Qmp };
}

it("reads QEMU's table of forwards", async () => {
  expect(await listForwards(monitor().qmp)).toEqual([
    port(80, 22255),
    { ...port(53, 22256, "UDP"), hostAddress: "0.0.0.0" },
  ]);
});

it("changes only the forwards that differ from QEMU's, and reports its refusal", async () => {
  const { qmp, said } = monitor();
  await changeForwards(qmp, [port(80, 22255), port(81, 3)]);
  expect(said).toEqual(["hostfwd_remove net0 udp:0.0.0.0:22256", "hostfwd_add net0 tcp:127.0.0.1:3-:81"]);
  await expect(changeForwards(monitor("could not set up").qmp, [port(81, 1)])).rejects.toThrow(
    /publishedPorts: tcp:127\.0\.0\.1:1-:81 was refused by QEMU: could not set up/,
  );
});
