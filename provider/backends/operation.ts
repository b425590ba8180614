/** One call of the engine, and the owner it works for. */

/** The stack and resource that own a thing on this machine. */
export interface Owner {
  /** URL of the state backend, e.g. `file:///…`; empty when the engine did not give it. */
  backend: string;
  project: string;
  stack: string;
  urn: string;
}

/** One CRUD call in flight. */
export interface Operation {
  owner: Owner;
  signal: AbortSignal;
  /** Milliseconds since the epoch; from the engine's customTimeouts or the resource's default. */
  deadline: number;
  /** Writes a line that stays in the update's output. */
  log(severity: "debug" | "info" | "warning" | "error", message: string): void;
  /** Shows a line on the resource's row while the update runs, in place of the last one. */
  status(message: string): void;
  /**
   * A named point at which tests kill or fail the call. Does nothing in production. The names: `marker-written`,
   * `disk-created`, `tpm-started`, `qemu-started`, `booted`, `enrolled`, `registry-started`, `image-built`,
   * `image-scanned`, `image-patched`, `image-pushed`, `layer-sealed`, `image-signed`, `seal-published`,
   * `channel-moved`, `group-applied`, `group-ready`, `image-policy-applied`, `network-policy-applied`.
   */
  checkpoint(name: string): Promise<void>;
}

/** The checkpoint of every operation outside of tests. */
export async function noCheckpoint(): Promise<void> {}
