/** A program that declares nothing: what every preview takes at least. */
import "@pulumi/pulumi";
