/** Marks what is secret by its nature, so that a program need not remember `pulumi.secret`. */
import * as pulumi from "@pulumi/pulumi";
import { isGiven, known } from "../internal/arguments.js";
import type * as inputs from "../../sdk/types/input.js";

type List<T> = pulumi.Input<pulumi.Input<T>[]>;

/** Secure values of environment variables. What becomes known later is marked by the provider. */
export function withSecureValues(containers: List<inputs.ContainerArgs>): List<inputs.ContainerArgs> {
  return mapKnown(containers, (container) =>
    !isGiven(container.environmentVariables)
      ? container
      : {
          ...container,
          environmentVariables: mapKnown(
            container.environmentVariables as List<inputs.EnvironmentVariableArgs>,
            (variable) =>
              !isGiven(variable.secureValue)
                ? variable
                : { ...variable, secureValue: pulumi.secret(variable.secureValue) },
          ),
        },
  );
}

/** Passwords of registries. What becomes known later is marked by the provider. */
export function withSecretPasswords(
  credentials: List<inputs.ImageRegistryCredentialArgs>,
): List<inputs.ImageRegistryCredentialArgs> {
  return mapKnown(credentials, (credential) =>
    !isGiven(credential.password) ? credential : { ...credential, password: pulumi.secret(credential.password) },
  );
}

function mapKnown<T>(list: List<T>, change: (item: T) => T): List<T> {
  const items = known(list);
  return !Array.isArray(items)
    ? list
    : items.map((input) => {
        const item = known(input);
        return item === undefined ? input : change(item);
      });
}
