/** The ways in which a container's image is named. */
import * as pulumi from "@pulumi/pulumi";
import type * as inputs from "../../sdk/types/input.js";
import { lift, mapItems } from "./inputs.js";
import type * as model from "./model.js";

/** Whether an image is given by its parts, and not as a reference that may become known later. */
export function isImageParts(
  image: model.ImageArgs | undefined,
): image is model.PinnedImageArgs | model.ChannelImageArgs {
  return typeof image === "object" && image !== null && !pulumi.Output.isInstance(image) && !(image instanceof Promise);
}

const followsChannel = (image: model.ImageArgs): image is model.ChannelImageArgs =>
  isImageParts(image) && "channel" in image;

/** The reference of an image whose digest the program names. */
export function imageReference(image: Exclude<model.ImageArgs, model.ChannelImageArgs>): pulumi.Input<string> {
  if (!isImageParts(image)) return image;
  return lift(image.repository, (repository) =>
    lift(image.digest, (digest) => `${repository}@${digest}`),
  ) as pulumi.Input<string>;
}

type Named<T> = Omit<T, "image"> & { image?: pulumi.Input<string>; imageChannel?: inputs.ImageChannelArgs };

/** Containers as the provider takes them: an image that follows a channel is another property than a reference. */
export function withImages<T extends { image: model.ImageArgs }>(containers: model.List<T>): model.List<Named<T>> {
  return mapItems(containers, ({ image, ...container }: T): Named<T> =>
    followsChannel(image)
      ? { ...container, imageChannel: image as inputs.ImageChannelArgs }
      : { ...container, image: imageReference(image) },
  );
}
