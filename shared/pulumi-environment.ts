/** Variables with which Pulumi needs no account, asks nothing and downloads nothing. */

/** Where a Pulumi with a backend of files keeps what. */
export interface PulumiFolders {
  /** URL of the backend, e.g. `file:///home/me/backend`. */
  backend: string;
  /** Folder for plugins, templates and credentials of Pulumi's own. Default: the caller's. */
  home?: string;
  /** File with the passphrase of the stacks' secrets. */
  passphraseFile?: string;
}

/**
 * Variables to set; `undefined` unsets one.
 *
 * @param passphrase in place of `passphraseFile`, for stacks of tests
 */
export function pulumiVariables(
  { backend, home, passphraseFile }: PulumiFolders,
  passphrase?: string,
): Record<string, string | undefined> {
  return {
    PULUMI_BACKEND_URL: backend,
    ...(home === undefined ? {} : { PULUMI_HOME: home }),
    ...(passphraseFile === undefined ? {} : { PULUMI_CONFIG_PASSPHRASE_FILE: passphraseFile }),
    // The file decides: a passphrase of another project in the caller's environment must not be tried.
    PULUMI_CONFIG_PASSPHRASE: passphrase,
    PULUMI_SKIP_UPDATE_CHECK: "true",
    PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION: "true",
  };
}
