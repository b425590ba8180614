import * as v from "valibot";
import { describe, expect, it } from "vitest";
import { decode, fitting, ForeignDataError, object, parseJson, record, unlessBroken } from "./decode.js";

const schema = object({
  name: v.string(),
  list: v.array(object({ size: v.number() })),
  notes: v.optional(record(v.string())),
});

describe("data of others", () => {
  it("is taken with what is not known of it", () => {
    const text = '{"name":"a","list":[{"size":1,"more":[]}],"notes":{"k":"v"},"other":null}';
    expect(decode(schema, text, "f")).toEqual(JSON.parse(text));
  });

  it.each([
    ["", /^\/m\.json: is empty where JSON is expected$/],
    ["\n", /is empty/],
    ["\0\0\0\0", /is no JSON, or was cut off/],
    ['{"name":"secret', /^\/m\.json: is no JSON, or was cut off$/],
    ["<!DOCTYPE html>", /is HTML or XML/],
    ["null", /^\/m\.json: expected Object, found null$/],
    ["[]", /expected Object, found a list/],
    ['"secret"', /expected Object, found a string/],
    ["{}", /\/m\.json: name: expected .*, found nothing/],
    ['{"name":"a","list":{}}', /list: expected Array, found an object/],
    ['{"name":"a","list":[[]]}', /list\.0: expected Object, found a list/],
    ['{"name":"a","list":[{"size":"secret"}]}', /list\.0\.size: expected number, found a string/],
    ['{"name":"a","list":[],"notes":[]}', /notes: expected Object, found a list/],
    ['{"name":"a","list":[],"notes":{"k":1}}', /notes\.k: expected string, found a number/],
    ['{"name":"a","name":"b","list":[]}', /"name" is there twice/],
    ['{"name":"a","list":[{"size":1,"s\\u0069ze":2}]}', /"size" is there twice/],
  ])("%j is refused with its place, and not shown", (text, reason) => {
    const read = () => decode(schema, text, "/m.json");
    expect(read).toThrow(ForeignDataError);
    expect(read).toThrow(reason);
    expect(read).not.toThrow(/secret/);
  });

  it("may have equal names in different objects, and names as values", () => {
    const text = '{"a":{"a":["a","a",{"a":"a"}]},"b":["{\\"a\\":1,\\"a\\":2}"]}';
    expect(parseJson(text, "f")).toEqual(JSON.parse(text));
  });

  it("loses no good item to a bad one", async () => {
    expect(fitting(object({ size: v.number() }), [null, {}, [], "x", { size: "1" }, { size: 1 }])).toEqual([
      { size: 1 },
    ]);
    for (const none of [null, undefined, {}, "x", 5]) expect(fitting(v.number(), none)).toEqual([]);
    expect(await unlessBroken(async () => parseJson("<", "f"))).toBeUndefined();
    await expect(unlessBroken(() => Promise.reject(new Error("no answer")))).rejects.toThrow("no answer");
  });
});
