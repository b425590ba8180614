import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { expect, it } from "vitest";
import type { PublishedPort } from "../../../backends/index.js";
import { isFree } from "../../../system/ports.js";
import { freePort, withFolder } from "../../../system/testing.js";
import { changeForwards, listForwards } from "./forwards.js";
import { Qmp } from "./qmp.js";

const hasQemu = spawnSync("qemu-system-x86_64", ["--version"]).status === 0;
const forward = (hostPort: number, protocol: "TCP" | "UDP" = "TCP"): PublishedPort => ({
  port: 80,
  protocol,
  hostAddress: "127.0.0.1",
  hostPort,
});

it.runIf(hasQemu)("changes the forwards of a real QEMU, which lists what it was told", async () => {
  await withFolder(async (folder) => {
    const monitor = join(folder, "qmp.sock");
    const qemu = spawn("qemu-system-x86_64", [
      ...[
        "-nodefaults",
        "-display",
        "none",
        "-S",
        "-m",
        "32",
        "-netdev",
        "user,id=net0",
        "-device",
        "virtio-net-pci,netdev=net0",
      ],
      ...["-chardev", `socket,id=monitor,path=${monitor},server=on,wait=off`, "-mon", "chardev=monitor,mode=control"],
    ]);
    try {
      while (!(await stat(monitor).catch(() => undefined))) await new Promise((resolve) => setTimeout(resolve, 50));
      await Qmp.session(monitor, async (qmp) => {
        const [one, two, three] = [
          forward(await freePort()),
          forward(await freePort()),
          forward(await freePort(), "UDP"),
        ];
        await changeForwards(qmp, [one, two]);
        expect(await listForwards(qmp)).toEqual(expect.arrayContaining([one, two]));
        await changeForwards(qmp, [two, three]);
        const listed = await listForwards(qmp);
        expect(listed).toHaveLength(2);
        expect(listed).toEqual(expect.arrayContaining([two, three]));
        expect(await isFree("TCP", "127.0.0.1", one.hostPort)).toBe(true);
        await expect(changeForwards(qmp, [two, three, { ...two, port: 81 }])).rejects.toThrow(
          /publishedPorts: .*refused/,
        );
      });
    } finally {
      qemu.kill("SIGKILL");
      await once(qemu, "close");
    }
  });
});
