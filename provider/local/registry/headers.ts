/** Headers of registries' answers, read as their specifications require. */

/** https://www.rfc-editor.org/rfc/rfc9110#section-11.6.1 */
export interface Challenge {
  /** Lower case. */
  scheme: string;
  /** Names in lower case. */
  parameters: Record<string, string>;
}

const token = "[!#$%&'*+.^_`|~0-9A-Za-z-]+";
const parameter = new RegExp(String.raw`(${token})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))`, "y");
const schemeAndToken = new RegExp(String.raw`(${token})(?:[ \t]+[\w.~+/-]+=*(?=[ \t]*(?:,|$)))?(?=[ \t,]|$)`, "y");

/**
 * The challenges of a `WWW-Authenticate` header, which may have several. Everything after a syntax error is ignored.
 */
export function challenges(header: string): Challenge[] {
  const found: Challenge[] = [];
  let position = 0;
  const take = (pattern: RegExp) => {
    pattern.lastIndex = position;
    const match = pattern.exec(header);
    if (match) position = pattern.lastIndex;
    return match;
  };
  for (;;) {
    take(/[\s,]*/y);
    const last = found.at(-1);
    const pair = last && take(parameter);
    if (pair) {
      const [, name, quoted, bare] = pair;
      last.parameters[name!.toLowerCase()] = quoted?.replaceAll(/\\(.)/g, "$1") ?? bare!;
      continue;
    }
    const begun = take(schemeAndToken);
    if (!begun) return found;
    found.push({ scheme: begun[1]!.toLowerCase(), parameters: {} });
  }
}

/** The media type of a `Content-Type` header, without its parameters and in lower case. */
export function mediaTypeOf(header: string | undefined): string {
  return (header ?? "").split(";")[0]!.trim().toLowerCase();
}

/** The address of the next page in a `Link` header: https://www.rfc-editor.org/rfc/rfc8288#section-3 */
export function nextLink(header: string | string[] | undefined): string | undefined {
  const text = Array.isArray(header) ? header.join(", ") : (header ?? "");
  for (const [, target, parameters] of text.matchAll(/<([^>]*)>((?:[^",]|"(?:[^"\\]|\\.)*")*)/g)) {
    for (const [, name, quoted, bare] of parameters!.matchAll(
      /;\s*([\w*-]+)\s*(?:=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+)))?/g,
    )) {
      const relations = (quoted ?? bare ?? "").toLowerCase().split(/\s+/);
      if (name!.toLowerCase() === "rel" && relations.includes("next")) return target;
    }
  }
  return undefined;
}
