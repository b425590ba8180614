/** What Pulumi registers of Kubernetes, as the objects that its provider would apply. */
import { plain } from "../../internal/testing/plain.js";
import type { Answer, Registration } from "../../internal/testing/recorder.js";

export interface KubernetesObject {
  apiVersion: string;
  kind: string;
  metadata: { name: string; namespace?: string; labels?: Record<string, string> };
  [field: string]: unknown;
}

/** Gives Secrets the names that the provider gives those without one: the resource's own and a suffix. */
export const answer: Answer = ({ type, name }) =>
  type === "kubernetes:core/v1:Secret" ? { metadata: { name: `${name}-0a1b2c3d` } } : {};

/** The objects, with Secrets' names filled in. */
export function objectsOf(registrations: Registration[]): KubernetesObject[] {
  return registrations
    .filter(({ type }) => type.startsWith("kubernetes:"))
    .map(({ type, name, inputs }) => {
      const object = plain(inputs) as KubernetesObject;
      const named = answer({ type, name })["metadata"] as { name: string } | undefined;
      return { ...object, metadata: { ...object.metadata, ...named } };
    });
}
