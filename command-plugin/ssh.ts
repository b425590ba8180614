/** Connections over SSH, as `remote.*` describe them. */
import { setTimeout as sleep } from "node:timers/promises";
import { hostPort, withoutBrackets } from "../shared/host-port.js";
import type { Duplex } from "node:stream";
import { Client, type ConnectConfig, type ServerHostKeyAlgorithm } from "ssh2";
import type { Operation } from "../provider/backends/index.js";
import type { RemoteConnection, RemoteProxyConnection } from "./inputs.js";

/** A machine. `dialErrorLimit` -1 is any number, `perDialTimeout` is in seconds, 0 is no limit. */
export type Endpoint = RemoteProxyConnection;
/** A machine that may be reached through another one. */
export type Connection = RemoteConnection;

const firstPauseMilliseconds = 200;
const longestPauseMilliseconds = 5_000;

/** The kinds of signature that a key of a type makes. */
const algorithms = (type: string): ServerHostKeyAlgorithm[] =>
  (type === "ssh-rsa" ? ["rsa-sha2-512", "rsa-sha2-256"] : [type]) as ServerHostKeyAlgorithm[];

function configuration(endpoint: Endpoint, environment: NodeJS.ProcessEnv): ConnectConfig {
  const [type = "", key = ""] = endpoint.hostKey?.trim().split(/\s+/) ?? [];
  if (endpoint.hostKey !== undefined && !key) {
    throw new Error("connection.hostKey: is no public key; it looks like `ssh-ed25519 AAAA…`");
  }
  return {
    host: withoutBrackets(endpoint.host),
    port: endpoint.port,
    username: endpoint.user,
    password: endpoint.password,
    tryKeyboard: endpoint.password !== undefined,
    privateKey: endpoint.privateKey,
    passphrase: endpoint.privateKeyPassword,
    agent: endpoint.agentSocketPath ?? environment["SSH_AUTH_SOCK"],
    readyTimeout: endpoint.perDialTimeout * 1000,
    // A machine that was switched off closes nothing; after a minute of silence the connection counts as lost.
    keepaliveInterval: 15_000,
    keepaliveCountMax: 4,
    ...(key
      ? {
          // A server has keys of several kinds; only the given one can be checked.
          algorithms: { serverHostKey: algorithms(type) },
          hostVerifier: (offered: Buffer) => offered.equals(Buffer.from(key, "base64")),
        }
      : {}),
  };
}

/** One attempt. */
function dialOnce(config: ConnectConfig, signal: AbortSignal): Promise<Client> {
  return new Promise((resolve, reject) => {
    const client = new Client();
    const cancel = () => fail(signal.reason as Error);
    const fail = (error: Error) => {
      signal.removeEventListener("abort", cancel);
      client.destroy();
      reject(error);
    };
    signal.addEventListener("abort", cancel, { once: true });
    client.once("ready", () => {
      signal.removeEventListener("abort", cancel);
      resolve(client);
    });
    // Not once: it emits more errors when it is destroyed, and its users learn of its end by their channels.
    client.on("error", fail);
    client.once("close", () => fail(new Error("the connection was closed")));
    client.on("keyboard-interactive", (_name, _instructions, _language, prompts, finish) =>
      finish(prompts.map(() => config.password ?? "")),
    );
    try {
      client.connect(config);
    } catch (error) {
      fail(error as Error);
    }
  });
}

/** Dials until it works, at most `dialErrorLimit` times more. */
async function dial(op: Operation, endpoint: Endpoint, name: string, through?: () => Promise<Duplex>): Promise<Client> {
  const config = configuration(endpoint, process.env);
  const place = `${endpoint.user}@${hostPort(endpoint.host, endpoint.port)}`;
  for (let failures = 0, pause = firstPauseMilliseconds; ; pause = Math.min(pause * 2, longestPauseMilliseconds)) {
    op.signal.throwIfAborted();
    try {
      return await dialOnce(through ? { ...config, sock: await through() } : config, op.signal);
    } catch (error) {
      op.signal.throwIfAborted();
      failures++;
      const message = (error as Error).message;
      if (endpoint.dialErrorLimit >= 0 && failures > endpoint.dialErrorLimit) {
        throw new Error(
          `${name}: no SSH connection to ${place} after ${failures} attempts: ${message}. Is the machine on, does its SSH server ` +
            `listen there, and does it take this user's key or password${endpoint.hostKey ? ", with the host key that is expected" : ""}?`,
          { cause: error },
        );
      }
      op.status(`waiting for SSH on ${place}: ${message}`);
      await sleep(pause, undefined, { signal: op.signal }).catch(() => undefined);
    }
  }
}

/**
 * Connects, works, and disconnects.
 * @throws Error when no connection is made within the limits of `connection`, or when it ends before the work does
 */
export async function withConnection<T>(
  op: Operation,
  connection: Connection,
  work: (client: Client) => Promise<T>,
): Promise<T> {
  const proxy = connection.proxy ? await dial(op, connection.proxy, "connection.proxy") : undefined;
  let client: Client | undefined;
  const cancel = () => client?.destroy();
  try {
    const through =
      proxy &&
      (() =>
        new Promise<Duplex>((resolve, reject) =>
          proxy.forwardOut("127.0.0.1", 0, withoutBrackets(connection.host), connection.port, (error, channel) =>
            error ? reject(error) : resolve(channel),
          ),
        ));
    client = await dial(op, connection, "connection", through);
    op.signal.addEventListener("abort", cancel, { once: true });
    const lost = new Promise<never>((_resolve, reject) =>
      client!.once("close", () =>
        reject(
          op.signal.aborted
            ? (op.signal.reason as Error)
            : new Error(`the SSH connection to ${connection.host} ended before the work did; run \`pulumi up\` again`),
        ),
      ),
    );
    lost.catch(() => undefined);
    return await Promise.race([work(client), lost]);
  } finally {
    op.signal.removeEventListener("abort", cancel);
    client?.end();
    proxy?.end();
  }
}
