import * as pulumi from "@pulumi/pulumi";
import { describe, expect, it } from "vitest";
import { rules } from "../internal/arguments.js";
import { quiet, valueOf } from "../internal/testing/recorder.js";
import { lift, mapItems, secret, verified, withDefault } from "./inputs.js";

describe("verified", () => {
  const verify = (image: pulumi.Input<string>) =>
    verified("late", { image }, (check, args) => void check.field("image", args.image, rules.imageReference));

  it("shows the value of a wrong argument that becomes known late", async () => {
    await expect(valueOf(quiet(verify(pulumi.output("word:latest"))))).rejects.toThrow('image = "word:latest": must');
  });

  it("shows no value when one of the arguments is secret", async () => {
    await expect(valueOf(quiet(verify(pulumi.secret("word:latest"))))).rejects.toThrow(/image: must(?![\s\S]*word)/);
  });
});

describe("what turns out to be null", () => {
  const nothing = () => pulumi.output<string | null>(null) as pulumi.Output<string>;
  it.each<[string, () => unknown, unknown]>([
    ["has its default", () => withDefault(nothing(), "TCP"), "TCP"],
    ["has its default when it is known", () => withDefault(null as never, "TCP"), "TCP"],
    ["is undefined for a change", () => lift(nothing(), (value) => value === undefined), true],
    ["is no secret", () => secret(nothing()), undefined],
    ["is no list", () => mapItems(pulumi.output(null) as never, () => 1), undefined],
  ])("%s", async (_what, make, expected) => {
    expect(await valueOf(pulumi.output(make()))).toEqual(expected);
  });
});
