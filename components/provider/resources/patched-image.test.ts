/** What is particular to patched images; what all resources share is in lifecycle.test.ts. */
import { expect, it } from "vitest";
import type { Backends, PatchSpec } from "../backends.js";
import { testOperation } from "../ownership/testing.js";
import { PropertyError, unknown, type Properties } from "../resource.js";
import { patchedImage } from "./patched-image.js";

const [original, other, patched] = ["1", "2", "3"].map((digit) => `sha256:${digit.repeat(64)}`) as [
  string,
  string,
  string,
];

/** A patcher that writes down what it is asked, on a database that a test changes. */
class Patcher {
  database = "sha256:first";
  readonly asked: { spec: PatchSpec; previous: string | undefined }[] = [];

  readonly backends = {
    patcher: {
      databaseDigest: async (directory?: string) => {
        if (directory !== "/nowhere") return this.database;
        throw new PropertyError([{ property: "database", reason: "/nowhere holds no vulnerability database" }]);
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

it("asks no database whose folder is not known yet", async () => {
  const inputs = await checked(new Patcher(), given({ database: unknown }));
  expect(inputs["databaseDigest"]).toBe(unknown);
});
