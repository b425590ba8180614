/** The digest of a container that follows a channel: the one that runs already, else the channel's. */
import type * as agentv1 from "../../hosts/api/gen/palisade/agent/v1/agent_pb.js";
import { canonicalServer, splitName } from "../../shared/image-reference.js";
import type { RegistryAccess } from "../backends/index.js";
import { PropertyError } from "../backends/errors.js";
import type { Context } from "../protocol/resource.js";
import type { GroupDeploymentInputs } from "../schema/inputs.js";
import { partsOf } from "./group-spec.js";

/** A container that follows a channel, with its place among the inputs. */
interface Follower {
  at: string;
  name: string;
  /** server/repository */
  repository: string;
  channel: string;
  publicKey: string | undefined;
}

export function followers({ containers }: GroupDeploymentInputs): Follower[] {
  return containers.flatMap(({ name, imageChannel }, index) => {
    if (!imageChannel) return [];
    const { repository, channel, publicKey } = imageChannel;
    return { at: `containers[${index}].imageChannel`, name, repository, channel, publicKey };
  });
}

/**
 * The digests of containers that follow a channel, by the containers' names. A digest that runs in such a container
 * stays: a change of the group, or of the channel, is no roll.
 *
 * @param present the group as its host has it; undefined when it has none.
 * @throws PropertyError with the path of a channel that does not exist or cannot be trusted.
 */
export async function chosenDigests(
  { backends }: Context,
  inputs: GroupDeploymentInputs,
  present: agentv1.Group | undefined,
): Promise<Map<string, string>> {
  const digests = new Map<string, string>();
  for (const follower of followers(inputs)) {
    digests.set(follower.name, runningDigest(follower, present) ?? (await channelDigest(follower)));
  }
  return digests;

  async function channelDigest({ at, repository, channel, publicKey }: Follower): Promise<string> {
    const { server, repository: path } = splitName(repository);
    const spec = { registry: accessOf(inputs, server), repository: path, channel };
    let digest: string | undefined;
    try {
      digest = await backends.channels.resolve(spec, publicKey);
    } catch (error) {
      throw new PropertyError([{ property: at, reason: (error as Error).message }]);
    }
    if (digest !== undefined) return digest;
    throw new PropertyError([
      {
        property: `${at}.channel`,
        reason:
          `${repository} has no channel ${channel}; publish an image into it first, by \`channel\` of a PatchedImage in this program ` +
          "(then give its output here) or by the pipeline that moves it",
      },
    ]);
  }
}

function runningDigest(follower: Follower, present: agentv1.Group | undefined): string | undefined {
  const container = present?.spec?.containers.find(({ name }) => name === follower.name);
  if (container?.channel !== follower.channel) return undefined;
  const { repository, digest } = partsOf(container.image);
  return repository === follower.repository ? digest : undefined;
}

function accessOf({ imageRegistryCredentials = [] }: GroupDeploymentInputs, server: string): RegistryAccess {
  const found = imageRegistryCredentials.find((one) => canonicalServer(one.server) === canonicalServer(server));
  return found ?? { server };
}
