/**
 * References to images: `server/repository[:tag]@digest`, in the grammar of https://github.com/distribution/reference.
 * The server is always written, and the digest decides: a tag beside it is only read. The agent's twin is
 * hosts/agent/internal/reference; the tests of both read hosts/api/testdata/image-references.json.
 */
import { isIPv6 } from "node:net";

export interface ImageReference {
  /** host[:port] as written; IPv6 addresses in brackets. */
  server: string;
  /** Path below the server. */
  repository: string;
  /** sha256: and 64 lower-case hexadecimal digits. */
  digest: string;
}

const label = "[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?";
const serverPattern = new RegExp(String.raw`^(?:(${label}(?:\.${label})*)|\[([0-9a-fA-F:]+)\])(?::([0-9]+))?$`);
const component = "[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*";
const repositoryPattern = new RegExp(`^${component}(?:/${component})*$`);
const tagPattern = /^\w[\w.-]{0,127}$/;
const digestPattern = /^sha256:[0-9a-f]{64}$/;
/** Characters of a DNS name. */
const maximumHost = 253;
/** Characters of a repository: the limit of distribution/reference. */
const maximumRepository = 255;

export const referenceForm = "server/repository@sha256:<64 hexadecimal digits>";

/**
 * Says what is wrong with `host[:port]`; undefined when nothing is. Neither this nor the other messages repeat the
 * value, which may be secret.
 */
export function serverProblem(server: string): string | undefined {
  if (server.includes("://")) return "has a scheme; give host[:port] without a scheme, as in image references";
  const [match, name, address, port] = serverPattern.exec(server) ?? [];
  if (match === undefined || (name ?? "").length > maximumHost || (address !== undefined && !isIPv6(address))) {
    return "is not host[:port]; an IPv6 address stands in brackets";
  }
  if (port !== undefined && (Number(port) < 1 || Number(port) > 65535))
    return "has a port that is not between 1 and 65535";
  return undefined;
}

/** Says what is wrong with the path of an image below its server; undefined when nothing is. */
export function repositoryProblem(repository: string): string | undefined {
  if (repository.length > maximumRepository) return `has more than ${maximumRepository} characters`;
  return repositoryPattern.test(repository)
    ? undefined
    : "is not a repository name: path components of lower-case letters and digits, joined by '.', '_', '__' or '-'";
}

/** Says what is wrong with `server/repository`; undefined when nothing is. */
export function nameProblem(name: string): string | undefined {
  const { server, repository } = splitName(name);
  if (repository === "") return "names no server; write server/repository";
  const problem = serverProblem(server);
  if (problem) return `its server ${problem}`;
  const repositoryPart = repositoryProblem(repository);
  return repositoryPart && `its repository ${repositoryPart}`;
}

/** Says what is wrong with what a policy accepts: server/repository, server/prefix/* or server/*. */
export function namePatternProblem(pattern: string): string | undefined {
  const name = pattern.endsWith("/*") ? pattern.slice(0, -2) : pattern;
  return name !== pattern && !name.includes("/") ? serverProblem(name) : nameProblem(name);
}

/** Says what is wrong with a reference by digest; undefined when nothing is. */
export function referenceProblem(text: string): string | undefined {
  const parts = split(text);
  if (parts.digest === undefined) return "names no digest; a tag alone can point elsewhere tomorrow";
  const problem = nameProblem(parts.name);
  if (problem) return problem;
  if (parts.tag !== undefined && !tagPattern.test(parts.tag)) {
    return "its tag is not 1 to 128 letters, digits, '_', '.' and '-'";
  }
  return digestPattern.test(parts.digest)
    ? undefined
    : "its digest is not sha256: and 64 lower-case hexadecimal digits";
}

/** @throws an error that says what is wrong and which form is right. */
export function parseImageReference(text: string): ImageReference {
  const problem = referenceProblem(text);
  if (problem) throw new Error(`${JSON.stringify(text)} is not ${referenceForm}: ${problem}`);
  const { name, digest } = split(text);
  return { ...splitName(name), digest: digest! };
}

/** server/repository@digest. */
export function formatReference({ server, repository, digest }: ImageReference): string {
  return `${server}/${repository}@${digest}`;
}

/** Server and path of `server/repository`. */
export function splitName(name: string): { server: string; repository: string } {
  const slash = name.indexOf("/");
  return slash < 0
    ? { server: name, repository: "" }
    : { server: name.slice(0, slash), repository: name.slice(slash + 1) };
}

/** One form for all names of a server: lower case, and Docker Hub's old name as its present one. */
export function canonicalServer(server: string): string {
  const lower = server.toLowerCase();
  return lower === "index.docker.io" ? "docker.io" : lower;
}

/** Where the registry API of a server answers, and the repository's path there: Docker Hub's is not at its name. */
export function apiLocation(server: string, repository: string): { host: string; repository: string } {
  if (canonicalServer(server) !== "docker.io") return { host: server, repository };
  return { host: "registry-1.docker.io", repository: repository.includes("/") ? repository : `library/${repository}` };
}

function split(text: string): { name: string; tag?: string; digest?: string } {
  const at = text.indexOf("@");
  const named = at < 0 ? text : text.slice(0, at);
  const colon = named.indexOf(":", named.indexOf("/") + 1);
  const isTagged = named.includes("/") && colon >= 0;
  return {
    name: isTagged ? named.slice(0, colon) : named,
    ...(isTagged ? { tag: named.slice(colon + 1) } : {}),
    ...(at < 0 ? {} : { digest: text.slice(at + 1) }),
  };
}
