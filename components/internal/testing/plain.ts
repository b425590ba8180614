/** Recorded inputs as the engine hands them to a provider that may see secrets. */
export function plain(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== "object" || value === null) return value;
  const content = value as Record<string, unknown>;
  if ("[secret]" in content) return plain(content["[secret]"]);
  return Object.fromEntries(Object.entries(content).map(([key, inner]) => [key, plain(inner)]));
}
