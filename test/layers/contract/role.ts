/** Programs of the agent as processes of a test. */
import { spawn, type ChildProcess } from "node:child_process";
import { existsSync } from "node:fs";

/** How long a program may take until it serves, milliseconds. */
const patience = 30_000;
const interval = 20;

/** A program that serves until the test ends it. */
export class ServingProcess {
  /** What it has written to its standard error so far. */
  log = "";
  private readonly ended: Promise<unknown>;

  private constructor(
    private readonly name: string,
    readonly child: ChildProcess,
  ) {
    child.stderr!.setEncoding("utf8").on("data", (text: string) => (this.log += text));
    this.ended = new Promise((resolve) => child.once("exit", resolve));
  }

  /**
   * Starts a program; returns once `serves` finds it ready.
   *
   * @throws with what the program has written, when it ends before or is not ready in 30 seconds.
   */
  static async start(
    [program = "", ...args]: string[],
    serves: (started: ServingProcess) => boolean,
  ): Promise<ServingProcess> {
    const started = new ServingProcess(
      `${program} ${args[0]}`,
      spawn(program, args, { stdio: ["pipe", "pipe", "pipe"] }),
    );
    for (let waited = 0; !serves(started); waited += interval) {
      if (started.child.exitCode !== null || waited > patience) {
        await started.stop();
        throw new Error(`${started.name} does not serve: ${started.log}`);
      }
      await new Promise((resolve) => setTimeout(resolve, interval));
    }
    return started;
  }

  /** One that serves on a unix socket. */
  static listening(socket: string, command: string[]): Promise<ServingProcess> {
    return ServingProcess.start(command, () => existsSync(socket));
  }

  /** @param signal default: SIGTERM, which lets calls in flight end. */
  async stop(signal?: NodeJS.Signals): Promise<void> {
    this.child.kill(signal);
    await this.ended;
  }
}
