/** One call of the engine, and who it is for. */

/** Who a thing on this machine belongs to. */
export interface Owner {
  /** URL of the state backend, e.g. `file:///…`; empty when the engine did not tell. */
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
  /** A line that stays in the update's output. */
  log(severity: "debug" | "info" | "warning" | "error", message: string): void;
  /** A line that replaces the last one on the resource's row while the update runs. */
  status(message: string): void;
  /**
   * Named points at which tests kill or fail the call: `marker-written`, `disk-created`, `tpm-started`, `qemu-started`,
   * `booted`, `enrolled`, `registry-started`, `image-built`, `image-scanned`, `image-patched`, `image-pushed`, `layer-sealed`, `image-signed`, `seal-published`, `channel-moved`,
   * `group-applied`, `group-ready`, `image-policy-applied`.
   * Does nothing in production.
   */
  checkpoint(name: string): Promise<void>;
}

/** The checkpoint of every operation outside of tests. */
export async function noCheckpoint(): Promise<void> {}
