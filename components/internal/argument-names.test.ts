import { describe, expect, it } from "vitest";
import { argumentNames } from "./argument-names.js";

interface Args {
  image: string;
  cpus?: number;
}

describe("argumentNames", () => {
  it("keeps the order in which the names are written", () => {
    expect(argumentNames<Args>({ image: true, cpus: true })).toEqual(["image", "cpus"]);
    expect(argumentNames<Args>({ cpus: true, image: true })).toEqual(["cpus", "image"]);
  });

  it("does not compile without a required name", () => {
    // @ts-expect-error image is missing
    argumentNames<Args>({ cpus: true });
  });

  it("does not compile without an optional name", () => {
    // @ts-expect-error cpus is missing
    argumentNames<Args>({ image: true });
  });

  it("does not compile with an unknown name", () => {
    // @ts-expect-error memory is no property of Args
    argumentNames<Args>({ image: true, cpus: true, memory: true });
  });

  it("does not compile with a name that is left out by its value", () => {
    // @ts-expect-error every name is there
    argumentNames<Args>({ image: true, cpus: undefined });
  });
});
