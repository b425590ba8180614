/** Converts a resource's differences into the engine's DiffResponse. */
import { DiffResponse, PropertyDiff as WireDiff } from "@pulumi/pulumi/proto/provider_pb.js";
import { RE2JS } from "re2js";
import type { PropertyDiff } from "./resource.js";

const kinds: Record<PropertyDiff["kind"], WireDiff.Kind> = {
  add: WireDiff.Kind.ADD,
  "add-replace": WireDiff.Kind.ADD_REPLACE,
  update: WireDiff.Kind.UPDATE,
  "update-replace": WireDiff.Kind.UPDATE_REPLACE,
  delete: WireDiff.Kind.DELETE,
  "delete-replace": WireDiff.Kind.DELETE_REPLACE,
};

/** First step of a path: `containers[0].image` → `containers`. */
const topLevel = (path: string): string => /^[^.[]+/.exec(path)?.[0] ?? path;

/** True when `path` is at or below a path of the resource option ignoreChanges, in which `*` stands for any step. */
export function isIgnored(path: string, ignoreChanges: string[]): boolean {
  return ignoreChanges.some((ignored) => {
    const pattern = ignored
      .split("*")
      .map((part) => RE2JS.quote(part))
      .join("[^.\\[\\]]*");
    // RE2 takes linear time, while JavaScript's own expressions take exponential time for many stars.
    return RE2JS.compile(`${pattern}(?:[.\\[].*)?`, RE2JS.DOTALL).matches(path);
  });
}

/** @param deleteBeforeReplace default: true, because two machines of one name never exist side by side */
export function toDiffResponse(all: PropertyDiff[], ignoreChanges: string[], deleteBeforeReplace = true): DiffResponse {
  // The engine itself restores the old values of ignored inputs, but it knows nothing of observed drift in ignored
  // properties.
  const differences = all.filter(({ path }) => !isIgnored(path, ignoreChanges));
  const replaces = differences.filter(({ kind }) => kind.endsWith("-replace"));
  const response = new DiffResponse();
  response.setChanges(differences.length ? DiffResponse.DiffChanges.DIFF_SOME : DiffResponse.DiffChanges.DIFF_NONE);
  response.setDiffsList([...new Set(differences.map(({ path }) => topLevel(path)))]);
  response.setReplacesList([...new Set(replaces.map(({ path }) => topLevel(path)))]);
  response.setDeletebeforereplace(deleteBeforeReplace && replaces.length > 0);
  response.setHasdetaileddiff(true);
  for (const { path, kind, inputDiff } of differences) {
    const wire = new WireDiff();
    wire.setKind(kinds[kind]);
    wire.setInputdiff(inputDiff);
    response.getDetaileddiffMap().set(path, wire);
  }
  return response;
}
