/**
 * Finds the properties that are secret in the schema. They are marked even when the program or a backend did not mark
 * them.
 */
import { own } from "../../shared/own-properties.js";
import type { Path } from "../protocol/marshal.js";

interface PropertySpec {
  $ref?: string;
  secret?: boolean;
  items?: PropertySpec;
  additionalProperties?: PropertySpec;
}
interface ObjectSpec {
  properties?: Record<string, PropertySpec>;
}
export interface SecretSchema {
  types?: Record<string, ObjectSpec>;
  resources?: Record<string, ObjectSpec & { inputProperties?: Record<string, PropertySpec> }>;
}

/** Returns whether the property at a path of the resource is secret in the schema. */
export function secretsOf(schema: SecretSchema, type: string): (path: Path) => boolean {
  const resource = own(schema.resources, type);
  const top: Record<string, PropertySpec> = { ...resource?.inputProperties, ...resource?.properties };
  return (path) => {
    let spec: PropertySpec | undefined = own(top, String(path[0]));
    for (const step of path.slice(1)) {
      if (!spec) return false;
      if (spec.$ref) spec = own(own(schema.types, spec.$ref.replace("#/types/", ""))?.properties, String(step));
      else spec = typeof step === "number" ? spec.items : spec.additionalProperties;
    }
    return spec?.secret === true;
  };
}
