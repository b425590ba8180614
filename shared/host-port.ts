/** Addresses of the network as text. Components and the provider share it. */
import { isIPv6 } from "node:net";

/** A host as programs dial it: an IPv6 address loses the brackets that URLs have around it. */
export function withoutBrackets(host: string): string {
  const inner = /^\[(.*)\]$/.exec(host)?.[1];
  return inner !== undefined && isIPv6(inner) ? inner : host;
}

/**
 * `host:port`, an IPv6 address in brackets whether it was given with them or not.
 *
 * @see RFC 3986, section 3.2.2
 */
export function hostPort(host: string, port: number | string): string {
  const dialed = withoutBrackets(host);
  return isIPv6(dialed) ? `[${dialed}]:${port}` : `${dialed}:${port}`;
}

/**
 * `https://host:port`. A zone of an IPv6 address, such as in `fe80::1%eth0`, has no place in a URL: see `urlProblem`.
 */
export const httpsUrl = (host: string, port: number | string): string => `https://${hostPort(host, port)}`;

/** What is wrong with a text as `https://host:port` and nothing more; undefined when nothing is. */
export function urlProblem(text: string): string | undefined {
  const match = /^https:\/\/(\[[^\]]*\]|[^\s/:?#@[\]]+):(\d{1,5})$/.exec(text);
  const host = match?.[1] ?? "";
  const port = Number(match?.[2]);
  const isRight = port >= 1 && port <= 65535 && (!host.startsWith("[") || isIPv6(host.slice(1, -1)));
  if (match && isRight && !host.includes("%")) return undefined;
  return "must be https://address:port, an IPv6 address in brackets and without a zone";
}
