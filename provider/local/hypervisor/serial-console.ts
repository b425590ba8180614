/** What the serial console of a booting machine shows, read piece by piece. */
import { textFrom } from "../../system/tail.js";
import { phaseOf } from "./boot-phases.js";

/** What a console has shown since it was read the last time. */
export interface ConsolePiece {
  text: string;
  /** The furthest phase of the boot that the text shows; undefined when it shows none. */
  phase: string | undefined;
}

export class SerialConsole {
  /**
   * @param file the log of the console
   * @param offset bytes of the file that an earlier start has written
   */
  constructor(
    private readonly file: string,
    private offset = 0,
  ) {}

  /** What is new; undefined when the console was silent. */
  async read(): Promise<ConsolePiece | undefined> {
    const { text, size } = await textFrom(this.file, this.offset);
    if (size === this.offset) return undefined;
    this.offset = size;
    return { text, phase: phaseOf(text) };
  }
}
