/** Keys in hardware or behind another PKCS#11 module, by URI: https://www.rfc-editor.org/rfc/rfc7512 */

/** The parts of a URI that decide how the key is reached. */
export interface Pkcs11Key {
  /** Without the module's path. */
  uri: string;
  /** The module's file; absent: what p11-kit is set up with. */
  modulePath?: string;
}

/**
 * Reads a URI. It names the key, never its PIN: that lies in a file which `pin-source` names.
 *
 * @throws when it is no such URI, or when it holds a PIN; the message does not repeat the PIN.
 */
export function parsePkcs11Uri(text: string): Pkcs11Key {
  if (!/^pkcs11:/i.test(text)) throw new Error("it does not begin with `pkcs11:` (RFC 7512)");
  // Wherever it stands: modules differ in how they take a URI apart.
  if (/pin-value/i.test(text)) {
    throw new Error(
      "`pin-value` holds the PIN in clear; put the PIN into a file of mode 0600 and name it by `pin-source`",
    );
  }
  const [path = "", ...queries] = text.slice("pkcs11:".length).split("?");
  const attributes = (part: string, separator: string) => part.split(separator).filter((one) => one !== "");
  const named = (one: string) => one.slice(0, one.indexOf("=")).toLowerCase();
  const pathAttributes = attributes(path, ";");
  const queryAttributes = attributes(queries.join("?"), "&");
  const all = [...pathAttributes, ...queryAttributes];
  if (all.some((one) => !one.includes("="))) throw new Error("each of its attributes has to be `name=value`");
  if (!pathAttributes.some((one) => ["object", "id"].includes(named(one)))) {
    throw new Error("it names no key: an `object` or an `id` is needed");
  }
  const source = queryAttributes.find((one) => named(one) === "pin-source");
  if (source !== undefined && !/^(file:(\/\/)?)?\//i.test(decodeURIComponent(source.slice("pin-source=".length)))) {
    throw new Error("`pin-source` has to be the absolute path of a file");
  }
  const modulePath = queryAttributes.find((one) => named(one) === "module-path");
  const kept = queryAttributes.filter((one) => one !== modulePath);
  return {
    uri: `pkcs11:${pathAttributes.join(";")}${kept.length ? `?${kept.join("&")}` : ""}`,
    ...(modulePath === undefined ? {} : { modulePath: decodeURIComponent(modulePath.slice("module-path=".length)) }),
  };
}
