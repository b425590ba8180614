/**
 * Microsoft's published client of ACI, with a wire that ends in this process: what it would send is what it returns.
 */
import { ContainerInstanceManagementClient, type ContainerGroup } from "@azure/arm-containerinstance";

export interface SentRequest {
  method: string;
  path: string;
  body: Record<string, unknown>;
}

type Bag = Record<string, unknown>;

/**
 * Sends azure-native's inputs of a group through the client. It refuses what lacks a required property, and drops what
 * it does not know.
 */
export async function sendThroughClient(inputs: Bag): Promise<SentRequest> {
  let sent: SentRequest | undefined;
  const client = new ContainerInstanceManagementClient(
    { getToken: async () => ({ token: "none", expiresOnTimestamp: Date.now() + 3_600_000 }) },
    "00000000-0000-0000-0000-000000000000",
    {
      httpClient: {
        async sendRequest(request) {
          const body = JSON.parse(request.body as string) as Bag;
          sent = { method: request.method, path: new URL(request.url).pathname, body };
          const answer = { ...body, properties: { ...(body["properties"] as Bag), provisioningState: "Succeeded" } };
          return { request, status: 201, headers: request.headers, bodyAsText: JSON.stringify(answer) };
        },
      },
    },
  );
  const { resourceGroupName, containerGroupName, identity, ...group } = inputs;
  const model = { ...group, ...(identity === undefined ? {} : { identity: restIdentity(identity as Bag) }) };
  await client.containerGroups.beginCreateOrUpdate(
    resourceGroupName as string,
    containerGroupName as string,
    model as unknown as ContainerGroup,
  );
  return sent!;
}

/** The same inputs as the body that ARM's schema asks for, nothing dropped. */
export function restBody(inputs: Bag): Bag {
  const {
    resourceGroupName: _group,
    containerGroupName: _name,
    location,
    tags,
    zones,
    identity,
    ...properties
  } = inputs;
  const nested = (list: unknown) =>
    (list as Bag[] | undefined)?.map(({ name, ...inner }) => ({ name, properties: inner }));
  return JSON.parse(
    JSON.stringify({
      location,
      tags,
      zones,
      identity: identity && restIdentity(identity as Bag),
      properties: {
        ...properties,
        containers: nested(properties["containers"]),
        initContainers: nested(properties["initContainers"]),
        extensions: nested(properties["extensions"]),
      },
    }),
  ) as Bag;
}

/** azure-native lists the ids of user-assigned identities; ARM has them as keys. */
function restIdentity({ type, userAssignedIdentities }: Bag): Bag {
  const ids = userAssignedIdentities as string[] | undefined;
  return { type, ...(ids ? { userAssignedIdentities: Object.fromEntries(ids.map((id) => [id, {}])) } : {}) };
}
