/**
 * OpenSSH's server from Debian, on a free port of the loopback, as a rescue system has it (test/support/rescue). Needs
 * root.
 */
import { execFile, spawn, type ChildProcess } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { utils } from "ssh2";
import { freePort } from "../../provider/system/testing.js";
import { packageRoot } from "../../shared/directories.js";

const rescue = path.join(packageRoot(), "test/support/rescue");
const password = "correct horse battery staple";

export class SshServer {
  /** `ssh-ed25519 AAAA…` of the server. */
  readonly hostKey: string;
  /** Of a key pair that may log in as root. */
  readonly privateKey: string;
  readonly password = password;
  /** What the server says. */
  log = "";

  private constructor(
    readonly port: number,
    private readonly folder: string,
    root: string,
    encrypted: string,
    acceptedVariables: string,
  ) {
    const host = utils.generateKeyPairSync("ed25519");
    const user = utils.generateKeyPairSync("ed25519");
    this.hostKey = host.public;
    this.privateKey = user.private;
    const write = (name: string, text: string) => writeFileSync(path.join(folder, name), text, { mode: 0o600 });
    write("host_key", host.private);
    write("authorized_keys", `${user.public}\n`);
    write("shadow", `root:${encrypted}:20000:0:99999:7:::\n`);
    write(
      "sshd_config",
      [
        `ListenAddress 127.0.0.1:${port}`,
        "HostKey /run/test/host_key",
        "AuthorizedKeysFile /run/test/authorized_keys",
        "PidFile none",
        "UsePAM no",
        "PermitRootLogin yes",
        `AcceptEnv ${acceptedVariables}`,
        "MaxStartups 100",
        // Wrong keys are part of the tests.
        "PerSourcePenalties no",
        "Subsystem sftp internal-sftp",
        "",
      ].join("\n"),
    );
    this.process = spawn(
      "unshare",
      ["--mount", "--pid", "--fork", "--kill-child", path.join(rescue, "ssh-server.sh"), root, folder],
      { stdio: ["ignore", "ignore", "pipe"] },
    );
    this.process.stderr!.on("data", (chunk: Buffer) => (this.log += chunk.toString()));
  }

  private readonly process: ChildProcess;

  /** @param acceptedVariables patterns of the variables that the server takes. Default: all. */
  static async start(acceptedVariables = "*"): Promise<SshServer> {
    const root = (await promisify(execFile)(path.join(rescue, "root.sh"))).stdout.trim();
    const encrypted = await promisify(execFile)("openssl", ["passwd", "-6", password]);
    const folder = mkdtempSync(path.join(tmpdir(), "palisade-sshd-"));
    const server = new SshServer(await freePort(), folder, root, encrypted.stdout.trim(), acceptedVariables);
    for (let attempt = 0; !(await server.answers()); attempt++) {
      if (attempt > 200 || server.process.exitCode !== null) throw new Error(`no SSH server: ${server.log}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    return server;
  }

  /** The resources' property `connection`. */
  connection(extra: Record<string, string | number> = {}) {
    const { port, privateKey, hostKey } = this;
    return {
      host: "127.0.0.1",
      port,
      user: "root",
      privateKey,
      hostKey,
      dialErrorLimit: 0,
      perDialTimeout: 15,
      ...extra,
    };
  }

  private answers(): Promise<boolean> {
    return new Promise((resolve) => {
      const socket = connect(this.port, "127.0.0.1")
        .once("connect", () => resolve(true))
        .once("error", () => resolve(false));
      socket.once("connect", () => socket.destroy());
    });
  }

  async stop(): Promise<void> {
    const gone = new Promise((resolve) => this.process.once("exit", resolve));
    this.process.kill("SIGKILL");
    await gone;
    rmSync(this.folder, { recursive: true });
  }
}
