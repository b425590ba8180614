import { describe, expect, it } from "vitest";
import { selectDisk, type BlockDevice, type DiskContent, type DiskRule, type Inventory } from "./disks.js";

const gibibyte = 1024 ** 3;

type Fake = BlockDevice & Omit<DiskContent, "signatures" | "isOurs">;

function disk(path: string, extra: Partial<Fake> = {}): Fake {
  return {
    path,
    type: "disk",
    size: 100 * gibibyte,
    model: "Fast 1000",
    serial: `S-${path.slice(-1)}`,
    wwn: "",
    ro: false,
    ...extra,
  };
}

function select(disks: Fake[], rule: DiskRule, allowOverwrite?: string, content: Partial<DiskContent> = {}): string {
  const contents = disks.map(({ path, serial, wwn, model }) => ({
    path,
    serial,
    wwn,
    model,
    signatures: "",
    ptuuid: "",
    ...content,
  }));
  const inventory = { contents, disks: { blockdevices: disks } } as unknown as Inventory;
  return selectDisk('BareMetalHost "x"', inventory, rule, allowOverwrite).path;
}

describe("selectDisk", () => {
  const disks = [
    disk("/dev/sda"),
    disk("/dev/sdb", { size: 500 * gibibyte, wwn: "0x5000" }),
    disk("/dev/sdc", { model: "Slow" }),
  ];

  it.each<[string, DiskRule]>([
    ["/dev/sda", { serial: "S-a" }],
    ["/dev/sdb", { wwn: "0x5000" }],
    ["/dev/sdb", { minimumGiB: 200 }],
    ["/dev/sdc", { model: "Slow" }],
    ["/dev/sda", { model: "Fast*", maximumGiB: 200 }],
  ])("%s by %j", (path, rule) => expect(select(disks, rule)).toBe(path));

  it("refuses a rule that fits none or several, with the list", () => {
    expect(() => select(disks, { serial: "S-z" })).toThrow(
      /disk = {"serial":"S-z"}: no disk fits[\s\S]*\/dev\/sda serial=S-a/,
    );
    expect(() => select(disks, { model: "Fast*" })).toThrow("2 disks fit: name one by serial or wwn");
  });

  it("does not see what is no disk, or cannot be written", () => {
    const others = [
      disk("/dev/loop0", { type: "loop" }),
      disk("/dev/sdr", { ro: true }),
      disk("/dev/sdn", { size: 0 }),
    ];
    expect(() => select(others, { model: "Fast*" })).toThrow(/no disk fits[\s\S]*none/);
  });

  it("refuses a disk that is too small", () => {
    expect(() => select([disk("/dev/sda", { size: 4 * gibibyte })], { serial: "S-a" })).toThrow(
      "is smaller than 8 GiB",
    );
  });

  const partitions = { children: [disk("/dev/sda1", { type: "part" })] };

  it.each<[string, Partial<BlockDevice>, Partial<DiskContent>]>([
    ["1 partitions", partitions, { signatures: "gpt,PMBR" }],
    ["xfs", {}, { signatures: "xfs" }],
    ["dos", {}, { signatures: "dos" }],
  ])("refuses a disk with %s, unless it is named", (what, extra, content) => {
    const used = [disk("/dev/sda", extra)];
    expect(() => select(used, { serial: "S-a" }, undefined, content)).toThrow(`there is ${what} on it`);
    expect(() => select(used, { serial: "S-a" }, "S-b", content)).toThrow(`there is ${what} on it`);
    expect(select(used, { serial: "S-a" }, "S-a", content)).toBe("/dev/sda");
  });

  it("does not see a disk whose content could not be read", () => {
    const inventory = {
      contents: [] as DiskContent[],
      disks: { blockdevices: [disk("/dev/sda")] },
    } as unknown as Inventory;
    expect(() => selectDisk("x", inventory, { serial: "S-a" })).toThrow("no disk fits");
  });

  it("takes a disk that an installation was begun on, or ended on", () => {
    const own = { signatures: "gpt,PMBR", isOurs: true };
    expect(select([disk("/dev/sda", partitions)], { serial: "S-a" }, undefined, own)).toBe("/dev/sda");
  });
});
