/** Copying to another machine by SFTP. */
import { readdir, realpath, stat } from "node:fs/promises";
import path from "node:path";
import type { Stats as LocalStats } from "node:fs";
import type { SFTPWrapper, Stats } from "ssh2";
import type { Operation } from "../provider/backends/index.js";
import type { Source } from "./assets.js";
import { withConnection, type Connection } from "./ssh.js";

/** SSH_FX_NO_SUCH_FILE */
const noSuchFile = 2;
const mebibyte = 1024 * 1024;

/** Copies over one SFTP session. */
export class Copier {
  constructor(
    private readonly sftp: SFTPWrapper,
    private readonly op: Operation,
  ) {}

  /** Undefined when there is nothing at the path. */
  private stat(target: string): Promise<Stats | undefined> {
    return new Promise((resolve, reject) =>
      this.sftp.stat(target, (error, stats) => {
        if (!error) return resolve(stats);
        if ((error as { code?: unknown }).code === noSuchFile) return resolve(undefined);
        reject(new Error(`remotePath ${target} cannot be looked at: ${error.message}`));
      }),
    );
  }

  private done(what: string, call: (done: (error?: Error | null) => void) => void): Promise<void> {
    return new Promise((resolve, reject) =>
      call((error) => (error ? reject(new Error(`${what}: ${error.message}`, { cause: error })) : resolve())),
    );
  }

  /** @throws Error for a source that is neither a file nor a folder: reading a pipe or a device would not end */
  private async file(source: string, target: string, stats: LocalStats): Promise<void> {
    if (!stats.isFile()) throw new Error(`source: ${source} is neither a file nor a folder; it cannot be copied`);
    const { size } = stats;
    let shown = -1;
    await this.done(`${source} cannot be copied to ${target}`, (done) =>
      this.sftp.fastPut(
        source,
        target,
        {
          step: (copied) => {
            const percent = Math.floor((copied / size) * 100);
            if (size < mebibyte || percent === shown) return;
            shown = percent;
            this.op.status(`copying ${path.basename(source)}: ${percent} % of ${Math.ceil(size / mebibyte)} MiB`);
          },
        },
        done,
      ),
    );
  }

  private async folder(target: string): Promise<void> {
    const there = await this.stat(target);
    if (there && !there.isDirectory()) throw new Error(`remotePath ${target} is there and is no folder`);
    if (!there) await this.done(`folder ${target} cannot be made`, (done) => this.sftp.mkdir(target, done));
  }

  /** @param above the parent folders of the copy, as paths without links */
  private async tree(source: string, target: string, above: readonly string[] = []): Promise<void> {
    const place = await realpath(source);
    if (above.includes(place)) {
      throw new Error(`source: ${source} is a link to a folder that it lies in, ${place}; the copy would never end`);
    }
    await this.folder(target);
    for (const name of (await readdir(source)).sort()) {
      const [from, to] = [path.join(source, name), path.posix.join(target, name)];
      const stats = await followed(from);
      if (stats.isDirectory()) await this.tree(from, to, [...above, place]);
      else await this.file(from, to, stats);
    }
  }

  /**
   * | source  | target is a folder | there is no target | target is a file |
   * |---------|--------------------|--------------------|------------------|
   * | folder  | target/folder      | target/folder      | refused          |
   * | folder/ | into target        | into target        | refused          |
   * | file    | target/file        | target             | overwritten      |
   *
   * A link counts as its target, on both machines.
   */
  async copy(source: string, target: string): Promise<void> {
    const stats = await followed(source);
    if (!stats.isDirectory()) {
      const into = (await this.stat(target))?.isDirectory() ?? false;
      return this.file(source, into ? path.posix.join(target, path.basename(source)) : target, stats);
    }
    await this.folder(target);
    await this.tree(source, source.endsWith("/") ? target : path.posix.join(target, path.basename(source)));
  }

  async text(text: string, target: string): Promise<void> {
    if ((await this.stat(target))?.isDirectory()) {
      throw new Error(`remotePath ${target} is a folder; a text needs the path of a file`);
    }
    await this.done(`${target} cannot be written`, (done) => this.sftp.writeFile(target, text, done));
  }
}

/** The file or folder at a path of this machine; links are followed. */
async function followed(source: string): Promise<LocalStats> {
  try {
    return await stat(source);
  } catch (error) {
    throw new Error(`source: ${source} cannot be read, or is a link that leads nowhere: ${(error as Error).message}`, {
      cause: error,
    });
  }
}

/** Copies a source to `remotePath`, from its beginning. */
export async function copyTo(op: Operation, connection: Connection, source: Source, remotePath: string): Promise<void> {
  await withConnection(op, connection, async (client) => {
    const sftp = await new Promise<SFTPWrapper>((resolve, reject) =>
      client.sftp((error, session) => (error ? reject(error) : resolve(session))),
    );
    const copier = new Copier(sftp, op);
    await ("text" in source ? copier.text(source.text, remotePath) : copier.copy(source.path, remotePath));
  });
}
