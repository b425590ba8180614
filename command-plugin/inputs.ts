// Generated from command-plugin/schema.json by tools/build/sdkgen. Do not edit.

export type LocalCommandInputs = {
  addPreviousOutputInEnv: boolean;
  archivePaths?: string[];
  assetPaths?: string[];
  create?: string;
  delete?: string;
  dir?: string;
  environment?: Record<string, string>;
  interpreter?: string[];
  logging?: LocalLogging;
  stdin?: string;
  triggers?: unknown[];
  update?: string;
};

/** What of the output is logged. */
export type LocalLogging = "stdout" | "stderr" | "stdoutAndStderr" | "none";

export type RemoteCommandInputs = {
  addPreviousOutputInEnv: boolean;
  /** Secret. */
  connection: RemoteConnection;
  create?: string;
  delete?: string;
  environment?: Record<string, string>;
  logging?: RemoteLogging;
  stdin?: string;
  triggers?: unknown[];
  update?: string;
};

/** How a machine is reached over SSH. */
export type RemoteConnection = {
  agentSocketPath?: string;
  dialErrorLimit: number;
  host: string;
  hostKey?: string;
  password?: string;
  perDialTimeout: number;
  port: number;
  privateKey?: string;
  privateKeyPassword?: string;
  proxy?: RemoteProxyConnection;
  user: string;
};

/** How a machine is reached that others are reached through. */
export type RemoteProxyConnection = {
  agentSocketPath?: string;
  dialErrorLimit: number;
  host: string;
  hostKey?: string;
  password?: string;
  perDialTimeout: number;
  port: number;
  privateKey?: string;
  privateKeyPassword?: string;
  user: string;
};

/** What of the output is logged. */
export type RemoteLogging = "stdout" | "stderr" | "stdoutAndStderr" | "none";

export type RemoteCopyFileInputs = {
  /** Secret. */
  connection: RemoteConnection;
  localPath: string;
  remotePath: string;
  triggers?: unknown[];
};

export type RemoteCopyToRemoteInputs = {
  /** Secret. */
  connection: RemoteConnection;
  remotePath: string;
  source: unknown;
  triggers?: unknown[];
};

export type LocalRunInputs = {
  addPreviousOutputInEnv: boolean;
  archivePaths?: string[];
  assetPaths?: string[];
  command: string;
  dir?: string;
  environment?: Record<string, string>;
  interpreter?: string[];
  logging?: LocalLogging;
  stdin?: string;
};

/** The inputs of each resource, by its token. */
export type Inputs = {
  "command:local:Command": LocalCommandInputs;
  "command:remote:Command": RemoteCommandInputs;
  "command:remote:CopyFile": RemoteCopyFileInputs;
  "command:remote:CopyToRemote": RemoteCopyToRemoteInputs;
};
