import { expect, it } from "vitest";
import { patchedConfiguration, type ImageDocuments } from "./documents.js";

const documents = (layers: string[], configuration: object): ImageDocuments => ({
  manifest: { layers: layers.map((digest) => ({ mediaType: "", digest, size: 1 })) },
  configuration: { rootfs: { type: "layers", diff_ids: layers.map((one) => `${one} tar`) }, ...configuration },
});
const original = documents(["a"], { config: { Cmd: ["x"] }, architecture: "amd64", created: "then", history: [1] });

it("is the original's, with one layer more", () => {
  const made = documents(["a", "b"], {
    ...{ config: { Cmd: ["y"], labels: { BaseImage: "127.0.0.1:1/image" } }, created: "now", history: [1, 2] },
  });
  expect(patchedConfiguration(original, made)).toEqual({
    ...{ config: { Cmd: ["x"] }, architecture: "amd64", created: "now", history: [1, 2] },
    rootfs: { type: "layers", diff_ids: ["a tar", "b tar"] },
  });
});

it.each([[["a"]], [["b", "a"]], [["a", "b", "c"]]])("refuses layers %j", (layers) => {
  expect(() => patchedConfiguration(original, documents(layers, {}))).toThrow(/the original's 1 and one more/);
});
