import { homedir } from "node:os";
import { describe, expect, it } from "vitest";
import { defaultCacheDirectory, defaultStateDirectory } from "./directories.js";

describe("default directories", () => {
  it.each([
    [{}, `${homedir()}/.local/state/palisade`, `${homedir()}/.cache/palisade`],
    [{ XDG_STATE_HOME: "/s", XDG_CACHE_HOME: "/c" }, "/s/palisade", "/c/palisade"],
    [{ XDG_STATE_HOME: "/s", PALISADE_STATE: "/own/s", PALISADE_CACHE: "/own/c" }, "/own/s", "/own/c"],
    [{ PALISADE_STATE: "", PALISADE_CACHE: "" }, `${homedir()}/.local/state/palisade`, `${homedir()}/.cache/palisade`],
  ])("%j", (environment, state, cache) => {
    expect(defaultStateDirectory(environment)).toBe(state);
    expect(defaultCacheDirectory(environment)).toBe(cache);
  });
});
