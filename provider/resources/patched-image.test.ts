/** The particular behaviour of patched images. lifecycle.test.ts tests what all resources have in common. */
import { expect, it } from "vitest";
import type { Backends, ChannelPublication, PatchSpec, SealSpec } from "../backends/index.js";
import { testOperation } from "../system/testing.js";
import { PropertyError } from "../backends/errors.js";
import { PartialFailure, unknown, type Properties } from "../protocol/resource.js";
import { patchedImage } from "./patched-image.js";

const [original, other, patched] = ["1", "2", "3"].map((digit) => `sha256:${digit.repeat(64)}`) as [
  string,
  string,
  string,
];

/** A patcher that records its calls, with a database that a test changes. */
class Patcher {
  database = "sha256:first";
  readonly asked: { spec: PatchSpec; previous: string | undefined }[] = [];
  /** The calls that concern the channel, in order. */
  readonly done: string[] = [];
  lacksTools = false;
  /** Fails there. */
  failing = "";

  private async step(name: string): Promise<void> {
    if (name === this.failing) throw new Error(`${name} fails`);
    this.done.push(name);
  }

  readonly backends = {
    sealer: { seal: async (_op: unknown, { digest }: SealSpec) => this.step(`seal ${digest}`) },
    channels: {
      publish: async (_op: unknown, { channel, digest }: ChannelPublication, from?: string) => {
        await this.step(`move ${channel} from ${from ?? "anywhere"} to ${digest}`);
        return { digest };
      },
    },
    patcher: {
      databaseDigest: async (directory?: string) => {
        if (directory !== "/nowhere") return this.database;
        throw new PropertyError([{ property: "database", reason: "/nowhere holds no vulnerability database" }]);
      },
      requireTools: async () => {
        if (this.lacksTools) throw new PropertyError([{ property: "digest", reason: "patching needs copa on PATH" }]);
      },
      patch: async (_op: unknown, spec: PatchSpec, previous?: string) => {
        this.asked.push({ spec, previous });
        return {
          ...{ digest: patched, reference: `r/web@${patched}`, fixableBefore: 1, fixableAfter: 0, remaining: [] },
          ...{ databaseDigest: this.database, scannedAt: "2026-11-24T00:00:00Z" },
        };
      },
    },
  } as unknown as Backends;
}

const given = (more: Properties = {}): Properties => ({
  ...{ registry: { server: "r" }, repository: "web", digest: original },
  ...{ imageSigner: { certificateFile: "/k.crt", keyFile: "/k.key" }, ...more },
});

async function checked({ backends }: Patcher, inputs: Properties): Promise<Properties> {
  const result = await patchedImage.check({ backends }, { inputs, oldInputs: undefined });
  expect(result.failures).toEqual([]);
  return result.inputs;
}

const op = testOperation("patched-image");

async function made(patcher: Patcher) {
  const inputs = await checked(patcher, given());
  const { id, outputs } = await patchedImage.create({ backends: patcher.backends }, { inputs, preview: false, op });
  return { id, inputs, outputs };
}

it("scans again when the database has another content, and keeps an earlier patch of the same original", async () => {
  const patcher = new Patcher();
  const { id, inputs: oldInputs, outputs: oldOutputs } = await made(patcher);
  expect(oldOutputs).toMatchObject({ digest: original, patchedDigest: patched });
  patcher.database = "sha256:second";
  const inputs = await checked(patcher, given());
  expect(patchedImage.diff({ id, oldInputs, oldOutputs, inputs }).map(({ path }) => path)).toEqual(["databaseDigest"]);
  const update = (next: Properties) =>
    patchedImage.update(
      { backends: patcher.backends },
      { id, oldInputs, oldOutputs, inputs: next, preview: false, op },
    );
  await update(inputs);
  await update(await checked(patcher, given({ digest: other })));
  expect(patcher.asked.map(({ spec, previous }) => [spec.digest, previous])).toEqual([
    [original, undefined],
    [original, patched],
    [other, undefined],
  ]);
});

it("refuses a folder without a database, by its field, before anything is made", async () => {
  const { backends } = new Patcher();
  const { failures } = await patchedImage.check(
    { backends },
    { inputs: given({ database: "/nowhere" }), oldInputs: undefined },
  );
  expect(failures).toEqual([{ property: "database", reason: "/nowhere holds no vulnerability database" }]);
});

it("says in preview already that this machine lacks the tools", async () => {
  const patcher = new Patcher();
  patcher.lacksTools = true;
  const { id, inputs: oldInputs, outputs: oldOutputs } = await made(patcher);
  const inputs = await checked(patcher, given({ triggers: ["again"] }));
  const { backends } = patcher;
  const foreseen = [
    patchedImage.create({ backends }, { inputs, preview: true, op }),
    patchedImage.update({ backends }, { id, oldInputs, oldOutputs, inputs, preview: true, op }),
  ];
  for (const one of foreseen) await expect(one).rejects.toThrow(/patching needs copa on PATH/);
});

it("asks no database whose folder is not known yet", async () => {
  const inputs = await checked(new Patcher(), given({ database: unknown }));
  expect(inputs["databaseDigest"]).toBe(unknown);
});

const key = { certificateFile: "/k.crt", keyFile: "/k.key" };
const channel = { channel: "stable", layerSigner: key, sealSigner: key };

it("moves a channel after the patch and the seal, and a later scan of the same original only where it moved it itself", async () => {
  const patcher = new Patcher();
  const { backends } = patcher;
  const oldInputs = await checked(patcher, given(channel));
  const { id, outputs: oldOutputs } = await patchedImage.create(
    { backends },
    { inputs: oldInputs, preview: false, op },
  );
  expect(oldOutputs).toMatchObject({ channel: "stable", channelDigest: patched });
  const changes: Properties[] = [{ triggers: ["again"] }, { digest: other }, { channel: "testing" }];
  for (const change of changes) {
    const inputs = await checked(patcher, given({ ...channel, ...change }));
    await patchedImage.update({ backends }, { id, oldInputs, oldOutputs, inputs, preview: false, op });
  }
  const move = (name: string, from: string) => [`seal ${patched}`, `move ${name} from ${from} to ${patched}`];
  expect(patcher.done).toEqual([
    ...move("stable", "anywhere"),
    ...move("stable", patched),
    // A release, and a channel of which nothing is known.
    ...move("stable", "anywhere"),
    ...move("testing", "anywhere"),
  ]);
});

it("keeps the patch and leaves the channel when sealing fails, and goes on from there", async () => {
  const patcher = new Patcher();
  const { backends } = patcher;
  const oldInputs = await checked(patcher, given(channel));
  patcher.failing = `seal ${patched}`;
  const failure = await patchedImage
    .create({ backends }, { inputs: oldInputs, preview: false, op })
    .then(() => undefined)
    .catch((error: unknown) => error);
  expect(failure).toBeInstanceOf(PartialFailure);
  const { id, outputs: oldOutputs, reasons } = failure as PartialFailure;
  expect(reasons).toEqual([`seal ${patched} fails`]);
  expect(oldOutputs).toMatchObject({ patchedDigest: patched });
  expect(oldOutputs["channelDigest"]).toBeUndefined();
  expect(patcher.done).toEqual([]);
  patcher.failing = "";
  await patchedImage.update({ backends }, { id, oldInputs, oldOutputs, inputs: oldInputs, preview: false, op });
  expect(patcher.asked.at(-1)?.previous).toBe(patched);
  expect(patcher.done).toEqual([`seal ${patched}`, `move stable from anywhere to ${patched}`]);
});

it("is imported with the channel into which it was published, so that the program's own shows no change", async () => {
  const patcher = new Patcher();
  const inputs = await checked(patcher, given(channel));
  const made = { original, imageSigner: key, observed: await patcher.backends.patcher.patch(op, {} as PatchSpec) };
  const found = { name: "stable", digest: other, layerSigner: key, sealSigner: key };
  const read = async (change: object) => {
    const readPatched = async () => ({ digest: patched, reference: `r/web@${patched}`, made: { ...made, ...change } });
    const backends = { ...patcher.backends, patcher: { ...patcher.backends.patcher, readPatched } } as Backends;
    const id = `r/web@${patched}`;
    return (await patchedImage.read({ backends }, { id, inputs: undefined, outputs: undefined, op }))!;
  };
  const { id, inputs: oldInputs, outputs: oldOutputs } = await read({ channel: found });
  // The inputs that the engine checks after an import.
  expect(await checked(patcher, oldInputs)).toEqual(oldInputs);
  expect(patchedImage.diff({ id, oldInputs, oldOutputs, inputs })).toEqual([]);
  // Another client has moved it since.
  expect(oldOutputs["channelDigest"]).toBe(other);

  const without = await read({});
  const changes = patchedImage.diff({ id, oldInputs: without.inputs, oldOutputs: without.outputs, inputs });
  expect(changes.map(({ path }) => path)).toEqual(["channel"]);
});
