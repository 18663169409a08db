/*
 * Which names of time zones are accepted, and how they are spelled. Intl is not enough: it accepts abbreviations (BST for Dhaka, PST), and
 * it lists only one name of each zone, which differs between Node versions (Asia/Calcutta or Asia/Kolkata).
 */

/** Names of the IANA database, by area, that some runtime does not list: links, and zones whose older name is listed instead. */
const ALSO_NAMED: Readonly<Record<string, string>> = {
  Africa: 'Asmara Asmera Timbuktu',
  America:
    'Argentina/Buenos_Aires Argentina/Catamarca Argentina/ComodRivadavia Argentina/Cordoba Argentina/Jujuy Argentina/Mendoza Atikokan Atka Buenos_Aires Catamarca Coral_Harbour Cordoba Ensenada Fort_Wayne Godthab Indiana/Indianapolis Indianapolis Jujuy Kentucky/Louisville Knox_IN Kralendijk Louisville Lower_Princes Marigot Mendoza Montreal Nipigon Nuuk Pangnirtung Porto_Acre Rainy_River Rosario Santa_Isabel Shiprock St_Barthelemy Thunder_Bay Virgin Yellowknife',
  Antarctica: 'South_Pole',
  Arctic: 'Longyearbyen',
  Asia: 'Ashkhabad Calcutta Choibalsan Chongqing Chungking Dacca Harbin Ho_Chi_Minh Istanbul Kashgar Kathmandu Katmandu Kolkata Macao Rangoon Saigon Tel_Aviv Thimbu Ujung_Pandang Ulan_Bator Yangon',
  Atlantic: 'Faeroe Faroe Jan_Mayen',
  Australia: 'ACT Canberra Currie LHI NSW North Queensland South Tasmania Victoria West Yancowinna',
  Brazil: 'Acre DeNoronha East West',
  Canada: 'Atlantic Central Eastern Mountain Newfoundland Pacific Saskatchewan Yukon',
  Chile: 'Continental EasterIsland',
  Etc: 'GMT GMT+0 GMT+1 GMT+10 GMT+11 GMT+12 GMT+2 GMT+3 GMT+4 GMT+5 GMT+6 GMT+7 GMT+8 GMT+9 GMT-0 GMT-1 GMT-10 GMT-11 GMT-12 GMT-13 GMT-14 GMT-2 GMT-3 GMT-4 GMT-5 GMT-6 GMT-7 GMT-8 GMT-9 GMT0 Greenwich UCT UTC Universal Zulu',
  Europe: 'Belfast Bratislava Busingen Kiev Kyiv Mariehamn Nicosia Podgorica San_Marino Tiraspol Uzhgorod Vatican Zaporozhye',
  Mexico: 'BajaNorte BajaSur General',
  Pacific: 'Chuuk Enderbury Johnston Kanton Pohnpei Ponape Samoa Truk Yap',
  US: 'Alaska Aleutian Arizona Central East-Indiana Eastern Hawaii Indiana-Starke Michigan Mountain Pacific Samoa',
};
/** Names without an area that are not abbreviations. */
const WITHOUT_AREA =
  'Cuba Egypt Eire Greenwich Hongkong Iceland Iran Israel Jamaica Japan Kwajalein Libya Navajo Poland Portugal Singapore Turkey UTC Universal Zulu';

/** By their lower case. */
const SPELLINGS: ReadonlyMap<string, string> = new Map(
  [
    ...Intl.supportedValuesOf('timeZone').filter((name) => name.includes('/')),
    ...Object.entries(ALSO_NAMED).flatMap(([area, places]) => places.split(' ').map((place) => `${area}/${place}`)),
    ...WITHOUT_AREA.split(' '),
  ].map((name) => [name.toLowerCase(), name]),
);

/** The database's spelling of an IANA name given in any case. Undefined for anything else, including abbreviations and offsets. */
export function timeZoneNamed(value: unknown): string | undefined {
  return typeof value === 'string' ? SPELLINGS.get(value.toLowerCase()) : undefined;
}
